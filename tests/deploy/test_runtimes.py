"""Other runtimes get the exported file alone, and give the logits of eager Paddle: ten pictures, in any batch.

A runtime that is not installed is skipped, with the extra that brings it. ONNX Runtime for Node is in test_clients, the
one for browsers (onnxruntime-web) in tests/book/test_live.py.
"""

import numpy as np
import pytest
from processes import run_python

from asymmlib.base.extras import missing_package
from asymmlib.deploy.export import TOLERANCE, difference, eager_logits
from asymmlib.runs import load_pretrained
from asymmlib.weights.released import RELEASED

pytestmark = pytest.mark.slow


def _onnxruntime(folder):
    import onnxruntime
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda pictures: session.run(None, {"pictures": pictures})[0]


def _openvino(folder):
    from asymmlib.deploy.engines import run_openvino
    return run_openvino(folder / "model.onnx")


def _cv2(folder):
    import cv2
    network = cv2.dnn.readNetFromONNX(str(folder / "model.onnx"))

    def run(pictures):
        network.setInput(pictures)
        return network.forward()
    return run


def _tract(folder):
    import tract
    model = tract.onnx().load(str(folder / "model.onnx")).into_model().into_runnable()
    return lambda pictures: model.run([pictures])[0].to_numpy()


# package: what opens its file
RUNTIMES = {"onnxruntime": _onnxruntime, "openvino": _openvino, "cv2": _cv2, "tract": _tract}
# Paddle Inference, as where asymmlib is not installed: files alone, pictures and logits as .npy
PADDLE_ALONE = """
import sys
sys.modules["asymmlib"] = None
from pathlib import Path
import numpy as np
from paddle import inference
folder, pictures, answers = map(Path, sys.argv[1:])
program = next(path for path in folder.glob("inference.*") if path.suffix in (".json", ".pdmodel"))
config = inference.Config(str(program), str(folder / "inference.pdiparams"))
config.disable_gpu()
config.disable_glog_info()
predictor = inference.create_predictor(config)
source = predictor.get_input_handle(predictor.get_input_names()[0])
target = predictor.get_output_handle(predictor.get_output_names()[0])
found = []
for start, end in ((0, 10), (0, 1), (3, 6)):
    source.copy_from_cpu(np.load(pictures)[start:end])
    predictor.run()
    found.append(target.copy_to_cpu())
np.savez(answers, *found)
"""


@pytest.fixture(scope="module", params=RELEASED)
def shipped(request, tmp_path_factory):
    """(folder of an export, ten pictures, logits of the eager network)."""
    from asymmlib.deploy.export import export_classifier
    if missing_package("onnx"):
        pytest.skip(missing_package("onnx"))
    folder, classifier = tmp_path_factory.mktemp(request.param), load_pretrained(request.param)
    export_classifier(classifier, folder)
    size = classifier.image_size
    pictures = np.random.default_rng(17).normal(size=(10, 3, size, size)).astype(np.float32)
    return folder, pictures, eager_logits(classifier.network, pictures)


def compared(run, pictures, expected):
    """Largest difference over batches of ten, one and three."""
    parts = (slice(0, 10), slice(0, 1), slice(3, 6))
    return max(difference(run(pictures[part]), expected[part]) for part in parts)


@pytest.mark.parametrize("package", RUNTIMES)
def test_a_runtime_gives_the_logits_of_eager_paddle(package, shipped):
    if reason := missing_package(package):
        pytest.skip(reason)
    folder, pictures, expected = shipped
    assert compared(RUNTIMES[package](folder), pictures, expected) <= TOLERANCE


def test_paddle_inference_in_a_process_without_asymmlib(shipped, tmp_path):
    folder, pictures, expected = shipped
    np.save(tmp_path / "pictures.npy", pictures)
    run_python("-W", "ignore", "-c", PADDLE_ALONE, folder, tmp_path / "pictures.npy", tmp_path / "logits.npz",
               timeout=300).check_returncode()
    with np.load(tmp_path / "logits.npz") as found:
        for name, part in zip(found.files, (slice(0, 10), slice(0, 1), slice(3, 6)), strict=True):
            assert difference(found[name], expected[part]) <= TOLERANCE
