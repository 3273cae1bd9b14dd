"""The book's live page: networks, runtime and drawn pictures packed for a browser, and the page's markup.

Two networks know photographs, the released ones; a third knows what this project draws, and the samples are drawings.
`build()` writes `book/static/live/built/`, which git ignores: ONNX models with their weights, ONNX Runtime Web as it
came with `npm ci` in `book/live`, and the samples. Each is a script that holds gzip as base64, because scripts
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
from asymmbook.editions.catalogue import FIGURE, catalogue
from asymmbook.evidence.drawn import drawn_file, open_drawn
from asymmbook.evidence.heads import recorded_decay
from asymmlib.base.extras import missing_package
from asymmlib.base.files import atomic_folder, locked
from asymmlib.runs import Classifier, load_pretrained
from asymmlib.weights.own import head_names
from asymmlib.weights.released import available

__all__ = ["SHOWN", "build", "demo", "markup", "networks", "obstacle", "trained"]

SHOWN = ("asymmnet_large", "mobilenet_v2")
SAMPLES, SAMPLE_SEED, SAMPLE_SIZE = 8, 99, 160
# our name -> file of the npm package onnxruntime-web: the build with WebAssembly alone, and the one with WebGPU
RUNTIME = {"runtime": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
GPU = {"runtime-webgpu": "ort.webgpu.bundle.min.mjs", "wasm-webgpu": "ort-wasm-simd-threaded.asyncify.wasm"}
LANGUAGE = "zh_CN"  # of the names of classes beside the English ones
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


def runtime_version() -> str:
    """The name and the version of that package, for records."""
    package = json.loads((runtime_dir() / "package.json").read_text(encoding="utf-8"))
    return f"{package['name']} {package['version']}"


def obstacle() -> str:
    """Why the demo cannot be built here, with what to do, or an empty text."""
    if missing_package("onnx"):
        return missing_package("onnx")
    absent = [name for name in (RUNTIME | GPU).values() if not (runtime_dir() / "dist" / name).is_file()]
    return f"the npm package onnxruntime-web is not here; with npm installed: {SET_UP}" if absent else ""


def networks() -> list[Classifier]:
    """The `Classifier`s to show: released weights where they are here, else trained on the sample, quick recipe; and
    the recorded one of drawn things."""
    photographs = [load_pretrained(name) if name in available() else trained(name) for name in SHOWN]
    return [*photographs, open_drawn()] if drawn_file().is_file() else photographs


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
    files = {name: (runtime_dir() / "dist" / file).read_bytes() for name, file in (RUNTIME | GPU).items()}
    for classifier in shown if shown is not None else networks():
        model = make_onnx(classifier.network, classifier.image_size, half=True, features=True)
        files[classifier.name] = model.SerializeToString()
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
    """The first drawings of a seed that no network was trained on: a list of {name, png}, the latter as base64.

    Which things, and how they look, follows from the seed alone; none was chosen for how it is answered.
    """
    from asymmlib.data.sample import CLASSES, draw
    pictures = []
    for number, name in enumerate(np.random.default_rng(SAMPLE_SEED).permutation(CLASSES)[:SAMPLES].tolist()):
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
    gpu = sum(sizes[f"{name}.js"] for name in GPU)
    megabytes = sum(size for name, size in sizes.items() if name.endswith(".js")) - gpu
    return Markup(markup(shown, megabytes / 1e6, root, gpu / 1e6))


def markup(shown: Iterable[Classifier], megabytes: float, root: str, gpu_megabytes: float = 0) -> str:
    """The demo's HTML for `Classifier`s; megabytes: what the button loads, and the one for WebGPU."""
    models = [_facts(classifier) for classifier in shown]
    tables = "".join(TABLE.format(name=model["name"], label=html.escape(model["label"]),
                                  below=BELOW.format(name=model["name"])) for model in models)
    return PAGE.format(root=root, models=html.escape(json.dumps(models)), megabytes=f"{megabytes:.0f}",
                       gpu=f"{gpu_megabytes:.0f}", tables=tables + OWN)


def _facts(classifier):
    """What live.js knows about a network; epochs: of training on the drawn pictures, 0 for other ones."""
    from asymmlib.models import MODELS
    provenance = classifier.provenance
    recipe, words = provenance["recipe"], catalogue(LANGUAGE)
    features = classifier.network.state_dict()[head_names(classifier.network)[0]].shape[0]
    return {"name": classifier.name, "label": MODELS[classifier.model].label, "size": classifier.image_size,
            "classes": classifier.classes, "chinese": [words.say(name, FIGURE) for name in classifier.classes],
            "mean": classifier.mean, "std": classifier.std, "none_below": classifier.none_below,
            "sha256": provenance.get("sha256"), "features": features, "decay": recorded_decay(classifier.name),
            "run": provenance.get("run", classifier.name),
            "epochs": recipe["epochs"] if recipe["data"] == "sample" else 0}


# data-text and data-label name the words that live.js puts there; live.css shows one of two languages
TABLE = """<div id="live-table-{name}" hidden><p id="live-none-{name}" class="live-none"></p>
<table><caption>{label}</caption><thead><tr><th scope="col" data-text="class"></th>
<th scope="col" data-text="probability"></th><td></td></tr></thead><tbody id="live-rows-{name}"></tbody></table>
{below}</div>
"""
BELOW = """<p><strong id="live-ms-{name}"></strong><br><span id="live-origin-{name}"></span></p>"""
OWN = TABLE.format(name="own", label='<span data-text="own"></span>', below="")

PAGE = """<link rel="stylesheet" href="{root}/live.css">
<section class="live" id="live-demo" data-models="{models}" data-megabytes="{megabytes}" data-gpu-megabytes="{gpu}">
<noscript><span lang="en">This demo runs in your browser and needs JavaScript, which is switched off.</span>
<span lang="zh">这个演示在你的浏览器中运行，需要 JavaScript，而它已被关闭。</span></noscript>
<div id="live-known"></div>
<button type="button" id="live-load" hidden></button>
<div id="live-panel" hidden>
<div class="live-drop" id="live-drop"><label for="live-file" data-text="choose"></label>
<input type="file" id="live-file" accept="image/*"></div>
<div class="live-samples" id="live-samples" role="group" data-label="samples"></div>
<button type="button" id="live-camera" data-text="on"></button>
<video id="live-video" playsinline muted hidden data-label="video"></video>
<button type="button" id="live-shot" data-text="shot" hidden></button>
<button type="button" id="live-gpu" hidden></button>
</div>
<p id="live-status" role="status" aria-live="polite"></p>
<div id="live-results" hidden><p><canvas id="live-seen" role="img" data-label="seen"></canvas></p>
<div class="live-results">{tables}</div></div>
<div id="live-teach" role="group" data-label="teach" hidden>
<p><strong data-text="teach"></strong><br><span id="live-teach-how"></span></p>
<div id="live-things"></div>
<button type="button" id="live-more" data-text="more"></button>
<button type="button" id="live-learn" data-text="learn"></button>
<button type="button" id="live-save" data-text="save" disabled></button>
<button type="button" id="live-again" data-text="again"></button>
<p><label for="live-open" data-text="open"></label> <input type="file" id="live-open" accept=".json"></p>
</div>
</section>
<script src="{root}/words.js"></script>
<script src="{root}/pixels.js"></script>
<script src="{root}/head.js"></script>
<script src="{root}/engine.js"></script>
<script src="{root}/live.js"></script>
<script src="{root}/teach.js"></script>
"""

MISSING = """<link rel="stylesheet" href="{root}/live.css">
<div class="live" id="live-missing">
<p lang="en"><strong>The demo was not built with this copy of the book.</strong> Reason: {reason}. Then build the book
again (<code>make book</code>).</p>
<p lang="zh"><strong>这一份书没有生成演示。</strong>原因：{reason}。处理之后重新生成本书（<code>make book</code>）。</p>
</div>
"""
