"""Where the time goes in a browser: ONNX Runtime Web's own profile of two networks, by operator.

`record` writes results/live-operators.csv. Each network runs many times, in turns; the fastest quarter of its runs
counts, so that other work on the machine disturbs least. Ratios count, not milliseconds: a profile slows small nodes.
The page is served with the headers by which Chromium lets its clock show 5 microseconds in place of 100.
"""
import base64
import json
from collections.abc import Iterable, Mapping

import pandas as pd

from asymmbook.checkout import results_dir
from asymmbook.pages.browser import chromium
from asymmbook.pages.live import RUNTIME, SHOWN, runtime_dir, runtime_version
from asymmlib.base.tables import write_table
from asymmlib.deploy.onnx_graph import make_onnx
from asymmlib.deploy.timing import machine
from asymmlib.runs import load_pretrained

__all__ = ["CONVOLUTION", "operators", "profiles", "record"]

RUNS, KEPT = 100, 4  # the fastest of every four
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
ADDRESS = "http://localhost/"  # answered here, without a server
PACKAGES = ("onnx", "numpy")
CONVOLUTION = "convolution"
PROFILE = """async ([js, wasm, models, size, runs]) => {
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const ort = await import(URL.createObjectURL(new Blob([bytes(js)], { type: "text/javascript" })));
  ort.env.wasm.wasmBinary = bytes(wasm).buffer;
  ort.env.wasm.numThreads = 1;
  const values = Float32Array.from({ length: 3 * size * size }, (_, i) => Math.sin(i * i));
  const pictures = new ort.Tensor("float32", values, [1, 3, size, size]), sessions = [];
  for (const model of models) sessions.push(await ort.InferenceSession.create(
    bytes(model), { executionProviders: ["wasm"], enableProfiling: true }));
  for (let run = 0; run < runs; run++) for (const session of sessions) await session.run({ pictures });
  for (const session of sessions) { console.log("profile"); session.endProfiling(); }
}"""


def operators(lines: Iterable[str]) -> pd.DataFrame:
    """A row an operator, the dearest first: operator, calls and ms of one run, the mean of the fastest quarter of runs.

    lines: of a profile in Chrome's trace format, one event a line. Convolutions are told apart by their filters.
    Raises `ValueError` where no run is in it.
    """
    nodes: list[tuple[int, str, float]] = []
    runs: list[float] = []
    for event in (json.loads(line.rstrip(",")) for line in lines if line.startswith("{")):
        if event["cat"] == "Node" and event["name"].endswith("_kernel_time"):
            nodes.append((len(runs), _kind(event["args"]), event["dur"] / 1000))
        elif event["name"] == "model_run":  # stands behind its nodes
            runs.append(event["dur"])
    if not nodes or not runs:
        raise ValueError("the profile has no runs: ONNX Runtime Web writes it to the console in another way now")
    fastest = sorted(range(len(runs)), key=lambda run: runs[run])[:max(1, len(runs) // KEPT)]
    table = pd.DataFrame(nodes, columns=["run", "operator", "ms"])
    table = table[table["run"].isin(fastest)].groupby("operator")["ms"].agg(calls="size", ms="sum").reset_index()
    table[["calls", "ms"]] /= len(fastest)
    return table.sort_values("ms", ascending=False, ignore_index=True)


def _kind(node):
    """The name of a node's operator; of a convolution, with or without an activation, what filters it has, and whether
    it has a single pixel to work on, as those of squeeze-and-excitation."""
    if node["op_name"] not in ("Conv", "FusedConv"):
        return node["op_name"]
    picture, filters = (next(iter(shape.values())) for shape in node["input_type_shape"][:2])
    depthwise, single = filters[1] == 1, picture[2:] == [1, 1]
    return (f"{'depthwise ' if depthwise else ''}{CONVOLUTION} {filters[2]} × {filters[3]}"
            f"{' on one pixel' if single else ''}")


def profiles(models: Mapping[str, bytes], size: int, runs: int = RUNS) -> tuple[dict[str, list[str]], str]:
    """({network: lines of its profile}, the browser's version) of ONNX files run in turns in Chromium, one thread."""
    packed = [base64.b64encode((runtime_dir() / "dist" / RUNTIME[name]).read_bytes()).decode() for name in RUNTIME]
    with chromium() as browser:
        page, lines = browser.new_page(), []
        page.on("console", lambda message: lines.append(message.text))
        page.route(f"{ADDRESS}**", lambda route: route.fulfill(body="", content_type="text/html", headers=ISOLATED))
        page.goto(ADDRESS)
        page.evaluate(PROFILE, [*packed, [base64.b64encode(model).decode() for model in models.values()], size, runs])
        version = browser.version
    starts = [number for number, line in enumerate(lines) if line == "profile"] + [len(lines)]
    return {name: lines[start:end] for name, start, end in zip(models, starts[:-1], starts[1:], strict=True)}, version


def record() -> pd.DataFrame:
    """Write results/live-operators.csv: network, operator, calls, ms, and where; return the table. Needs Chromium."""
    networks = {name: load_pretrained(name) for name in SHOWN}
    sizes = {classifier.image_size for classifier in networks.values()}
    if len(sizes) != 1:
        raise ValueError(f"the networks take pictures of different sizes, {sorted(sizes)}: no fair comparison")
    size = sizes.pop()
    found, version = profiles({name: make_onnx(classifier.network, size).SerializeToString()
                               for name, classifier in networks.items()}, size)
    table = pd.concat([operators(lines).assign(network=name) for name, lines in found.items()], ignore_index=True)
    table = table[["network", "operator", "calls", "ms"]].assign(
        image_size=size, runs=RUNS, runtime=runtime_version(), browser=f"Chromium {version}",
        **machine(PACKAGES))
    write_table(table, results_dir() / "live-operators.csv")
    return table
