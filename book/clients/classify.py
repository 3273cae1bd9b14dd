"""Classify pictures with an exported network; onnxruntime and Pillow are enough: classify.py model.onnx IMAGE..."""
import base64
import io
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = session.get_modelmeta().custom_metadata_map
classes, steps, reference = (json.loads(about[name]) for name in ("classes", "preprocessing", "reference"))
least = json.loads(about.get("none_below", "0"))  # what the best class must reach


def logits(file):
    picture = ImageOps.exif_transpose(Image.open(file)).convert("RGBA")
    ground = Image.new("RGBA", picture.size, "white")
    picture = Image.alpha_composite(ground, picture).convert("RGB")
    pixels = np.asarray(picture.resize(steps["size"][::-1], Image.Resampling.BILINEAR))
    if steps["dtype"] == "float32":  # else the graph does this itself
        pixels = (pixels / 255 - steps["mean"]) / steps["std"]
        pixels = pixels.astype(np.float32).transpose(2, 0, 1)
    return session.run(None, {session.get_inputs()[0].name: pixels[None]})[0][0]


expected = np.array(reference["logits"])
found = logits(io.BytesIO(base64.b64decode(reference["picture"])))
if np.abs(found - expected).max() > reference["tolerance"] * np.abs(expected).max():
    sys.exit("the reference picture gets other logits: something here differs from training")
for path in sys.argv[2:]:
    values = logits(path)
    scores = np.exp(values - values.max())
    best, share = scores.argmax(), scores.max() / scores.sum()
    print(f"{path}: {classes[best]} {share:.1%}{', none of these' if share < least else ''}")
