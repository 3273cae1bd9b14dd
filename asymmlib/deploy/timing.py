"""How fast each engine answers: `measure(model)` and `python -m asymmlib bench-infer` -> results/bench_infer.csv.

All engines run in one process, in turns of a few hundred milliseconds: whatever else the machine does meanwhile hits
all of them alike, so ratios hold where seconds do not. Before its turn an engine waits until the threads of the one
before have gone to sleep (OpenMP's spin for 0.2 s), then answers once unmeasured. malloc keeps freed memory for all of
them, as our kernels would make it do for those that come after them.
"""
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pandas as pd

from asymmlib.base.environment import environment, package_versions
from asymmlib.base.tables import replace_rows
from asymmlib.deploy.checking import difference, eager_logits
from asymmlib.deploy.engines import ENGINES, Runner, load_engine, missing, threads
from asymmlib.deploy.export import export
from asymmlib.fast.native import tune_malloc
from asymmlib.models import create_model

__all__ = ["PERCENTILES", "available", "machine", "measure", "prepare_engines", "spread", "summarise", "take_turns",
           "typical_network", "write"]

PERCENTILES = (50, 90, 99)
REST_S = 0.3
PACKAGES = ("paddlepaddle", "onnx", "onnxruntime", "openvino", "numpy")


def available(names: Sequence[str] = tuple(ENGINES)) -> tuple[list[str], dict[str, str]]:
    """Split engine names into those that run here and {name: why not}. Raises `ValueError` for an unknown name."""
    reasons = {name: missing(name) for name in names}
    return [name for name in names if not reasons[name]], {name: text for name, text in reasons.items() if text}


def measure(model: str = "asymmnet_large", image_size: int = 224, batches: Sequence[int] = (1, 32), rounds: int = 10,
            turn_s: float = 0.5, names: Sequence[str] | None = None, classes: int = 16,
            network: paddle.nn.Layer | None = None) -> pd.DataFrame:
    """Time the engines that can run here; return one row per engine and batch, as `summarise` describes.

    The network is `typical_network`'s, as speed does not depend on weights; or `network`, called `model`. rounds:
    turns of each engine; turn_s: length of one, seconds (at least two answers). names: engines, default all that run
    here; the eager network is always among them. Raises `ValueError` for unknown names and counts below 1,
    `RuntimeError` for an engine that was asked for by name and cannot run.
    """
    for name, value in (("rounds", rounds), *(("batches", batch) for batch in batches)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} has {value!r}; it takes integers of at least 1")
    able, reasons = available(tuple(ENGINES) if names is None else ("eager", *(n for n in names if n != "eager")))
    if names is not None and reasons:
        raise RuntimeError("; ".join(f"engine {name!r} cannot run: {why}" for name, why in reasons.items()))
    tune_malloc()
    network, rows = typical_network(model, classes) if network is None else network, []
    with tempfile.TemporaryDirectory() as folder:
        export(network, folder, image_size)
        for batch in batches:
            images = np.random.default_rng(0).normal(size=(batch, 3, image_size, image_size)).astype(np.float32)
            runs = prepare_engines(able, network, Path(folder), batch)
            expected = eager_logits(network, images)
            differences = {name: difference(run(images), expected) for name, run in runs.items()}
            seconds = take_turns(runs, images, rounds, turn_s)
            rows.append(summarise(seconds, batch).assign(difference=pd.Series(differences)))
    table = pd.concat(rows).rename_axis("engine").reset_index()
    return table.assign(model=model, image_size=image_size, **machine())


def typical_network(model: str, classes: int = 16, batches: int = 8) -> paddle.nn.Layer:
    """A network with random weights of seed 0; its batch norm has seen some noise, so logits have a usual size."""
    paddle.seed(0)
    network, rng = create_model(model, classes), np.random.default_rng(0)
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            layer._momentum = 0.5  # a few batches suffice; no effect in eval mode
    with paddle.no_grad():
        for _ in range(batches):
            network(paddle.to_tensor(rng.normal(size=(8, 3, 64, 64)).astype(np.float32)))
    network.eval()
    return network


def prepare_engines(names: Iterable[str], network: paddle.nn.Layer, folder: Path, batch: int) -> dict[str, Runner]:
    """{name: function} of loaded engines."""
    return {name: load_engine(name, network, folder, batch) for name in names}


def take_turns(runs: Mapping[str, Runner], images: np.ndarray, rounds: int, turn_s: float,
               rest_s: float = REST_S) -> dict[str, list[list[float]]]:
    """Call the functions in turns; return {name: list of one list of seconds per round}.

    A turn lasts `turn_s` seconds and has at least two calls, after one that is not measured. Every second round goes
    backwards through the engines.
    """
    seconds: dict[str, list[list[float]]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name in list(runs)[::1 if turn % 2 == 0 else -1]:
            time.sleep(rest_s)
            runs[name](images)
            seconds[name].append(_one_turn(runs[name], images, turn_s))
    return seconds


def _one_turn(run, images, turn_s):
    found, end = [], time.perf_counter() + turn_s
    while len(found) < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        run(images)
        found.append(time.perf_counter() - start)
    return found


def summarise(seconds: Mapping[str, list[list[float]]], batch: int) -> pd.DataFrame:
    """A table by engine: batch, calls, p50/p90/p99 of one call in milliseconds, images_per_s at the median, and ratios.

    ratio: the eager network's median time over the engine's, median over rounds; ratio_low and ratio_high: smallest
    and largest round. Above 1 is faster than eager.
    """
    medians = {name: np.array([np.median(turn) for turn in turns]) for name, turns in seconds.items()}
    rows = {}
    for name, turns in seconds.items():
        calls, ratios = np.concatenate(turns), medians["eager"] / medians[name]
        rows[name] = {"batch": batch, "calls": len(calls),
                      **{f"p{p}_ms": 1000 * np.percentile(calls, p) for p in PERCENTILES},
                      "images_per_s": batch / np.median(calls), "ratio": np.median(ratios),
                      "ratio_low": ratios.min(), "ratio_high": ratios.max()}
    return pd.DataFrame.from_dict(rows, orient="index")


def spread(turns: list[list[float]]) -> tuple[float, float, float]:
    """Milliseconds of one call: median of the turns' medians, the fastest turn's, the slowest's."""
    medians = 1000 * np.array([np.median(turn) for turn in turns])
    return float(np.median(medians)), float(medians.min()), float(medians.max())


def machine(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """What times depend on, as columns: CPU, cores, threads, Python, versions of packages, commit."""
    found = environment()
    versions = " ".join(f"{name}={number}" for name, number in package_versions(packages).items())
    return {"cpu": found["cpu"], "cores": found["cores"], "threads": threads(), "python": found["python"],
            "versions": versions, "commit": found["commit"]}


def write(table: pd.DataFrame, path: Path | str) -> Path:
    """Store a table of `measure` as CSV, in front of what the file holds of other processors; return the path.

    Rows of the same processor are replaced; of the others no letter changes. Raises `ValueError` that names a file
    which is no such table.
    """
    replace_rows(table, path, lambda old: old["cpu"].isin(table["cpu"]), ("engine", "cpu"))
    return Path(path)
