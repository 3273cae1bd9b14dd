"""The live page's networks on a graphics chip, by WebGPU, beside WebAssembly: the same answers, and how fast?

`record` writes results/live-webgpu.csv. It uses the page's own engine.js in Chromium, on the page's samples, and times
the two ways in turns, each as the page times it, in one browser after the other; the fastest quarter of all turns
counts. The page is served as in `asymmbook.pages.wasm`.
"""
import base64
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pandas as pd

from asymmbook.checkout import project_root, results_dir
from asymmbook.pages import live
from asymmbook.pages.browser import chromium
from asymmbook.pages.wasm import ADDRESS, ISOLATED, KEPT, PACKAGES
from asymmlib.base.tables import write_table
from asymmlib.data.pictures import load_picture, normalise
from asymmlib.deploy.engines import run_onnx
from asymmlib.deploy.onnx_graph import make_onnx
from asymmlib.deploy.timing import machine
from asymmlib.runs import Classifier

__all__ = ["CHIP", "SIMULATED", "measure", "record"]

CHIP = ("--enable-unsafe-webgpu", "--enable-webgpu-developer-features", "--ignore-gpu-blocklist",
        "--enable-features=Vulkan", "--use-vulkan=native", "--use-angle=vulkan", "--disable-vulkan-surface")
SIMULATED = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")  # Chromium's own, on the processor
BROWSERS, TURNS, REPEATS = 3, 40, 5  # the page shows the median of five
WAYS = ("wasm", "webgpu")
SCRIPTS = ("pixels.js", "engine.js")
PAGE = "<!doctype html>" + "".join(f'<script src="{name}"></script>' for name in SCRIPTS)
# answers {adapter, networks: [{logits, features: {way: rows}, ms: {way: of turns}, opened_ms, placed: [[by, count]]}]}
PROBE = r"""async ([models, pictures, turns, repeats]) => {
  const lines = [], missing = (file) => `${file} is missing`;
  for (const kind of ["debug", "error", "info", "log", "warn"]) console[kind] = (words) => lines.push(String(words));
  const { info } = await navigator.gpu?.requestAdapter() ?? {};
  if (!info) return { adapter: "" };
  const cpu = await liveEngine.loadRuntime(missing), networks = [];
  const gpu = await liveEngine.loadRuntime(missing, "runtime-webgpu", "wasm-webgpu");
  const decoded = await Promise.all(pictures.map((png) => liveEngine.decode(
    new Blob([Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0))], { type: "image/png" }))));
  for (const model of models) {
    await liveEngine.loadModel(model, cpu, missing);
    const start = performance.now(), engines = { wasm: model.engine };
    engines.webgpu = await liveEngine.open(gpu, model.bytes, "webgpu");
    const found = { logits: {}, features: {}, ms: { wasm: [], webgpu: [] }, opened_ms: performance.now() - start };
    const run = (way, picture, count) => liveEngine.run({ ...model, engine: engines[way] }, picture, count);
    for (const way in engines) {
      const answers = [];
      for (const picture of decoded) answers.push(await run(way, picture, 0));
      for (const kind of ["logits", "features"]) found[kind][way] = answers.map((answer) => answer[kind]);
    }
    for (let turn = 0; turn < turns; turn++) for (const way in engines) {
      found.ms[way].push((await run(way, decoded[turn % decoded.length], repeats)).ms);
    }
    lines.length = 0;
    const session = await gpu.InferenceSession.create(
      model.bytes, { executionProviders: ["webgpu"], logSeverityLevel: 0 });
    found.placed = lines.map((line) => /placed on \[(\w+)\]\. Number of nodes: (\d+)/.exec(line)).filter(Boolean)
      .map(([, where, count]) => [where, Number(count)]);
    await session.release();
    networks.push(found);
  }
  return { adapter: info.description || info.architecture, networks };
}"""


def measure(shown: Sequence[Classifier], pngs: Sequence[str], flags: Iterable[str], browsers: int = BROWSERS,
            turns: int = TURNS, repeats: int = REPEATS) -> tuple[pd.DataFrame, dict[str, str]]:
    """A row a network, and what computed it: {adapter, browser}, in so many Chromiums started with these flags.

    pngs: picture files in base64. Raises `RuntimeError` where Chromium has no adapter for WebGPU.
    """
    models = [{"name": classifier.name, "size": classifier.image_size, "mean": classifier.mean, "std": classifier.std}
              for classifier in shown]
    with tempfile.TemporaryDirectory() as folder:
        _lay_out(shown, Path(folder))
        found = [_probe(Path(folder), flags, [models, pngs, turns, repeats]) for _ in range(browsers)]
    rows = [{"network": network.name, "image_size": network.image_size, **_row(answers, _logits(network, pngs))}
            for network, *answers in zip(shown, *(each["networks"] for each in found), strict=True)]
    return pd.DataFrame(rows), {"adapter": found[0]["adapter"], "browser": found[0]["browser"]}


def _probe(folder, flags, given):
    """PROBE's answer with the browser's version."""
    with chromium(*flags) as browser:
        page = browser.new_page()
        page.route(f"{ADDRESS}**", lambda route: route.fulfill(
            path=folder / (route.request.url.removeprefix(ADDRESS) or "index.html"), headers=ISOLATED))
        page.goto(ADDRESS)
        found = page.evaluate(PROBE, given)
        if not found["adapter"]:
            raise RuntimeError("this Chromium has no adapter for WebGPU")
        return {**found, "browser": f"Chromium {browser.version}"}


def _lay_out(shown, folder):
    """A page with the engine's scripts, and in built/ what they load."""
    (folder / "index.html").write_text(PAGE, encoding="utf-8")
    for name in SCRIPTS:
        shutil.copy(project_root() / "book" / "static" / "live" / name, folder)
    live.build(shown, folder / "built")


def _logits(classifier, pngs):
    """Logits [N, classes] by ONNX Runtime in Python, of the file that the page has."""
    run = run_onnx(make_onnx(classifier.network, classifier.image_size, half=True, features=True).SerializeToString())
    pixels = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        for png in pngs:
            path.write_bytes(base64.b64decode(png))
            pixels.append(load_picture(path, classifier.image_size))
    return run(normalise(np.stack(pixels), classifier.mean, classifier.std))


def _row(answers, expected):
    """Times, the largest differences of any number, and where nodes ran, of PROBE's answers for one network."""
    if not all(answer["placed"] for answer in answers):
        raise ValueError("ONNX Runtime Web says in another way now where it runs the nodes of a graph")
    nodes = dict(answers[0]["placed"])
    numbers = {(kind, way): np.array([answer[kind][way] for answer in answers])
               for kind in ("logits", "features") for way in WAYS}
    return {**{f"{way}_ms": _fastest([ms for answer in answers for ms in answer["ms"][way]]) for way in WAYS},
            "opened_ms": min(answer["opened_ms"] for answer in answers), "nodes": sum(nodes.values()),
            "on_chip": nodes.get("WebGpuExecutionProvider", 0), "pictures": len(expected),
            "largest": np.abs(expected).max(), "from_python": np.abs(numbers["logits", "webgpu"] - expected).max(),
            **{f"{kind}_from_wasm": np.abs(numbers[kind, "webgpu"] - numbers[kind, "wasm"]).max()
               for kind in ("logits", "features")}}


def _fastest(times):
    """The mean of the fastest quarter."""
    return float(np.mean(sorted(times)[:max(1, len(times) // KEPT)]))


def record() -> pd.DataFrame:
    """Write results/live-webgpu.csv: a row a network, and where; return the table. Needs a graphics chip."""
    table, where = measure(live.networks(), [sample["png"] for sample in live.samples()], CHIP)
    if "SwiftShader" in where["adapter"]:
        raise RuntimeError("Chromium reaches no graphics chip by WebGPU here: only SwiftShader, on the processor")
    table = table.assign(runs=BROWSERS * TURNS * REPEATS, runtime=live.runtime_version(), **where,
                         date=f"{datetime.now(timezone.utc):%Y-%m-%d}", **machine(PACKAGES))
    write_table(table, results_dir() / "live-webgpu.csv")
    return table
