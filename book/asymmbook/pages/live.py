"""The book's live page: networks, runtime and drawn pictures packed for a browser, and the page's markup.

`build()` writes `book/static/live/built/`, which git ignores: ONNX models with their weights, ONNX Runtime Web as it
came with `npm ci` in `book/live`, and a few drawn pictures. Each is a script that holds gzip as base64, because scripts
are the one thing that a page may read when it is opened as a file. Preprocessing, display and the demo's words, in the
languages of the book, are in `book/static/live/*.js`; what a reader sees without scripts is here, in both languages.
Where npm or ONNX is missing, the page says so and how to get it; nothing is fetched here.
"""
import base64
import gzip
import html
import io
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from asymmbook.checkout import project_root
from asymmlib.base.extras import missing_package
from asymmlib.base.files import atomic_folder, locked
from asymmlib.runs import Classifier, load_pretrained
from asymmlib.weights.released import available

__all__ = ["SHOWN", "build", "demo", "markup", "networks", "obstacle", "trained"]

SHOWN = ("asymmnet_large", "mobilenet_v2")
SAMPLES = ("balloon", "boat", "butterfly", "car", "fish", "guitar", "house", "rocket")
SAMPLE_SEED, SAMPLE_SIZE = 99, 160
# our name -> file of the npm package onnxruntime-web: the build with WebAssembly alone, no WebGPU
RUNTIME = {"runtime": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
SET_UP = "npm ci --prefix book/live --ignore-scripts"


class Markup(str):
    """Text that Jupyter shows as HTML."""

    def _repr_html_(self):
        return str(self)


def built_dir() -> Path:
    """Where the packed files go; Sphinx copies it with the other static files."""
    return project_root() / "book" / "static" / "live" / "built"


def runtime_dir() -> Path:
    """The files of onnxruntime-web, where `npm ci` has put them."""
    return project_root() / "book" / "live" / "node_modules" / "onnxruntime-web"


def obstacle() -> str:
    """Why the demo cannot be built here, with what to do, or an empty text."""
    if missing_package("onnx"):
        return missing_package("onnx")
    absent = [name for name in RUNTIME.values() if not (runtime_dir() / "dist" / name).is_file()]
    return f"the npm package onnxruntime-web is not here; with npm installed: {SET_UP}" if absent else ""


def networks() -> list[Classifier]:
    """The `Classifier`s to show: released weights where they are here, else trained on the sample, quick recipe."""
    return [load_pretrained(name) if name in available() else trained(name) for name in SHOWN]


def trained(name: str) -> Classifier:
    """A network trained on the drawn pictures by the quick recipe, its weights rounded to float16."""
    from asymmlib.data.sources import prepare
    from asymmlib.deploy.export import save_half
    from asymmlib.recipes import get_recipe
    from asymmlib.training import train
    from asymmlib.weights.own import load_weights
    run = train(name, get_recipe("quick"), prepared=prepare("sample"))
    classifier, half = run.classifier(), run.folder / "last-float16.safetensors"
    save_half(classifier.network, half)
    load_weights(classifier.network, half)
    return replace(classifier, name=name)


def build(shown: Iterable[Classifier] | None = None, target: Path | str | None = None) -> dict[str, int]:
    """Pack everything into `target` (default: `built_dir()`), replacing what was there; return {file: bytes}.

    Raises `RuntimeError` with what to do where `obstacle` names one.
    """
    from asymmlib.deploy.onnx_graph import make_onnx
    if obstacle():
        raise RuntimeError(f"the live page cannot be built: {obstacle()}")
    target = Path(target) if target else built_dir()
    files = {name: (runtime_dir() / "dist" / file).read_bytes() for name, file in RUNTIME.items()}
    for classifier in shown if shown is not None else networks():
        files[classifier.name] = make_onnx(classifier.network, classifier.image_size, half=True).SerializeToString()
    with locked(target):
        shutil.rmtree(target, ignore_errors=True)
        with atomic_folder(target) as folder:
            for name, content in files.items():
                (folder / f"{name}.js").write_text(_script(name, content))
            (folder / "samples.js").write_text(f"globalThis.liveSamples = {json.dumps(samples())};\n")
            shutil.copy(runtime_dir() / "package.json", folder / "onnxruntime-web.json")  # version and licence
    return {path.name: path.stat().st_size for path in sorted(target.iterdir())}


def _script(name, content):
    packed = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f'(globalThis.liveFiles ??= {{}})["{name}"] = "{packed}";\n'


def samples() -> list[dict[str, str]]:
    """Drawn pictures that no network was trained on: a list of {name, png}, the latter as base64."""
    from asymmlib.data.sample import draw
    pictures = []
    for number, name in enumerate(SAMPLES):
        file = io.BytesIO()
        draw(name, np.random.default_rng([SAMPLE_SEED, number]), SAMPLE_SIZE).save(file, "PNG")
        pictures.append({"name": name, "png": base64.b64encode(file.getvalue()).decode()})
    return pictures


def demo(root: str = "../_static/live") -> Markup:
    """Build, and return the page's markup, which a notebook shows as HTML: the demo, or why it is not there.

    root: the folder of live.js, seen from the page.
    """
    if obstacle():
        shutil.rmtree(built_dir(), ignore_errors=True)
        return Markup(MISSING.format(root=root, reason=html.escape(obstacle())))
    shown = networks()
    sizes = build(shown)
    megabytes = sum(size for name, size in sizes.items() if name.endswith(".js")) / 1e6
    return Markup(markup(shown, megabytes, root))


def markup(shown: Iterable[Classifier], megabytes: float, root: str) -> str:
    """The demo's HTML for `Classifier`s."""
    models = [_facts(classifier) for classifier in shown]
    tables = "".join(TABLE.format(name=model["name"], label=html.escape(model["label"])) for model in models)
    return PAGE.format(root=root, models=html.escape(json.dumps(models)), megabytes=f"{megabytes:.0f}", tables=tables)


def _facts(classifier):
    """What live.js knows about a network; epochs: of training on the drawn pictures, 0 for other ones."""
    from asymmlib.models import MODELS
    recipe = classifier.provenance["recipe"]
    return {"name": classifier.name, "label": MODELS[classifier.model].label, "size": classifier.image_size,
            "classes": classifier.classes, "mean": classifier.mean, "std": classifier.std,
            "run": classifier.provenance["run"], "epochs": recipe["epochs"] if recipe["data"] == "sample" else 0}


# data-text and data-label name the words that live.js puts there; live.css shows one of two languages
TABLE = """<div><table><caption>{label}</caption><thead><tr><th scope="col" data-text="class"></th>
<th scope="col" data-text="probability"></th><td></td></tr></thead><tbody id="live-rows-{name}"></tbody></table>
<p><strong id="live-ms-{name}"></strong><br><span id="live-origin-{name}"></span></p></div>
"""

PAGE = """<link rel="stylesheet" href="{root}/live.css">
<section class="live" id="live-demo" data-models="{models}" data-megabytes="{megabytes}">
<noscript><span lang="en">This demo runs in your browser and needs JavaScript, which is switched off.</span>
<span lang="zh">这个演示在你的浏览器中运行，需要 JavaScript，而它已被关闭。</span></noscript>
<button type="button" id="live-load" hidden></button>
<div id="live-panel" hidden>
<div class="live-drop" id="live-drop"><label for="live-file" data-text="choose"></label>
<input type="file" id="live-file" accept="image/*"></div>
<div class="live-samples" id="live-samples" role="group" data-label="samples"></div>
<button type="button" id="live-camera" data-text="on"></button>
<video id="live-video" playsinline muted hidden data-label="video"></video>
<button type="button" id="live-shot" data-text="shot" hidden></button>
</div>
<p id="live-status" role="status" aria-live="polite"></p>
<div id="live-results" hidden><p><canvas id="live-seen" role="img" data-label="seen"></canvas></p>
<div class="live-results">{tables}</div></div>
</section>
<script src="{root}/pixels.js"></script>
<script src="{root}/live.js"></script>
"""

MISSING = """<link rel="stylesheet" href="{root}/live.css">
<div class="live" id="live-missing">
<p lang="en"><strong>The demo was not built with this copy of the book.</strong> Reason: {reason}. Then build the book
again (<code>make book</code>).</p>
<p lang="zh"><strong>这一份书没有生成演示。</strong>原因：{reason}。处理之后重新生成本书（<code>make book</code>）。</p>
</div>
"""
