"""The parts of a training step: the same arithmetic, every operation counted, and what the page says of them."""

import numpy as np
import paddle
import pandas as pd
import pytest
from scripts import load_script

from asymmbook.evidence import speeds
from asymmbook.figures.comparison import plot_roofline
from asymmbook.pages import kernels as page
from asymmlib.complexity import count
from asymmlib.fast import accelerate, kernels
from asymmlib.models import create_model

needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="no compiler: no kernels to time")


@pytest.fixture(scope="module")
def kernel_times():
    return load_script("benchmarks/kernel_times.py")


def one_step(network, x):
    """Logits and all gradients of a batch."""
    logits = network(x)
    (logits**2).mean().backward()
    arrays = [logits.numpy(), *(each.grad.numpy() for each in network.parameters() if not each.stop_gradient)]
    network.clear_gradients()
    return arrays


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize("name", ["asymmnet_small", "resnet50"])
def test_step_by_step_is_the_same_arithmetic_and_every_product_is_counted(kernel_times, name, monkeypatch):
    paddle.seed(0)
    network, x = create_model(name, 4), paddle.randn([2, 3, 64, 64])
    accelerate(network)
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.Dropout):
            layer.p = 0.0
    timed = kernel_times.Timed(kernels.library())
    first = one_step(network, x)
    monkeypatch.setattr(kernels, "library", lambda: timed)
    again = one_step(network, x)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    done = {direction: sum(sums["operations"] for (_, which), sums in timed.found.items() if which == direction)
            for direction in ("forward", "backward")}
    whole = count(create_model(name, 4), (1, 3, 64, 64))
    assert done["forward"] == 2 * 2 * (whole.macs - whole.macs_of("linear"))
    stem = min(sums["operations"] for (kernel, way), sums in timed.found.items()
               if kernel.startswith("dense") and way == "backward")
    assert done["forward"] < done["backward"] <= 2 * done["forward"] - stem / 2  # pictures need no gradient
    assert all(sums["seconds"] > 0 for sums in timed.found.values())


def test_bytes_are_those_of_every_tensor_once(kernel_times):
    layer = {"kind": 2, "n": 2, "c": 3, "h": 5, "w": 5, "side": 0, "out": 4, "kernel": 1, "stride": 2}
    there = dict.fromkeys(("x", "side_x", "weight", "residual", "y", "z", "gz", "gx", "gside", "gweight"), 0)
    forward = there | {"x": 8, "weight": 16, "y": 24, "z": 24}  # z lies where y does
    assert kernel_times.cost(layer, forward, "forward") == (2 * 2 * 9 * 12, 4 * (2 * 25 * 3 + 12 + 2 * 9 * 4))
    backward = forward | {"gz": 32, "gweight": 40}
    assert kernel_times.cost(layer, backward, "backward") == (2 * 2 * 9 * 12, 4 * (150 + 12 + 72 + 72 + 12))
    assert kernel_times.cost(layer, backward | {"gx": 48}, "backward")[0] == 2 * 2 * 2 * 9 * 12
    assert kernel_times.cost(layer, forward, "backward") == (0, 0)
    depthwise = layer | {"kind": 3, "kernel": 3, "side": 1, "out": 5}
    assert kernel_times.cost(depthwise, forward | {"side_x": 48}, "forward") == (
        2 * 2 * 9 * 45, 4 * (150 + 50 + 45 + 2 * 9 * 5))


@pytest.fixture
def rows():
    """A step of 10 ms: 5 in a fast kernel, 3 in a slow one, 1 in the optimiser."""
    same = {"size": 64, "batch": 32, "peak_gflops": 100.0, "bandwidth_gb_s": 50.0, "cpu": "A", "counters": False}
    return pd.DataFrame([
        {"kernel": "whole step", "direction": "step", "seconds": 0.010, "calls": 1},
        {"kernel": "depthwise 3 × 3", "direction": "forward", "seconds": 0.003, "calls": 2, "operations": 3e7,
         "bytes": 6e7},
        {"kernel": "pointwise", "direction": "backward", "seconds": 0.005, "calls": 3, "operations": 4e8, "bytes": 5e7},
        {"kernel": "optimiser", "direction": "step", "seconds": 0.001, "calls": 1, "operations": 0, "bytes": 0}]
    ).assign(**same)


def test_the_page_adds_up(rows):
    assert page.rest(rows, 64) == pytest.approx(0.1)
    table = page.table(rows, 64)
    assert list(table.index) == ["pointwise", "depthwise 3 × 3", "optimiser", "outside the kernels"]
    assert list(table.loc["pointwise"]) == ["backward", "3", "5.0", "50%", "80%", "20%"]
    assert list(table.loc["optimiser"]) == ["", "1", "1.0", "10%", "", ""]
    assert table.loc["outside the kernels", "of the step"] == "10%" and table.loc["outside the kernels", "ms"] == "1.0"
    assert page.points(rows, 64) == {"depthwise 3 × 3, forward": (0.5, pytest.approx(10)),
                                     "pointwise, backward": (8.0, pytest.approx(80))}
    assert page.sentence(rows, 64) == (
        "At 64 px 50% of the step passes in kernels that reach at least 50% of the measured peak, 0% in others that "
        "reach 25%, 30% in kernels below 25%, 10% in means, layout and optimiser, 10% outside all kernels. The "
        "largest part, 50%, is pointwise, backward, at 80% of the peak. The machine lets nobody read its counters "
        "of memory traffic.")


def test_a_kernel_between_is_told_too(rows):
    text = page.sentence(rows.replace({"operations": {4e8: 2e8}}), 64)
    assert " 0% of the step passes in kernels that reach at least 50% " in text
    assert " 50% in others that reach 25%, 30% in kernels below 25%, 10% in means" in text


def test_rounds_and_disturbed_ones_are_counted_alike(rows):
    both = pd.concat([rows, rows.assign(size=256)]).assign(threads=2, rounds=7, disturbed=3)
    assert page.measured(both) == "**A**, 2 threads, batch 32, 7 rounds of each size; 6 of 14 stayed disturbed."


def test_rows_that_are_not_there_are_named(rows):
    with pytest.raises(ValueError, match="no whole step of 128 px was measured, only of 64"):
        page.table(rows, 128)
    with pytest.raises(ValueError, match="`make bench` measures this one"):
        speeds.of_processor(rows[:0])


def test_a_kernel_has_one_colour_forward_and_backward():
    names = "abcde"
    points = {f"{name}, {way}": (1.0, 2.0) for way in ("forward", "backward") for name in names}
    lines = plot_roofline(points, 100, 10).axes[0].get_lines()[1:]
    looks = {line.get_label(): (line.get_marker(), line.get_color()) for line in lines}
    assert len(looks) == 10 and all(looks[f"{name}, forward"][1] == looks[f"{name}, backward"][1] for name in names)
    assert len({looks[f"{name}, forward"] for name in names}) == 5 and len(set(looks.values())) == 10


def test_rows_of_other_processors_stay(rows, tmp_path):
    full = rows.reindex(columns=speeds.KERNELS)
    speeds.record_kernels(full.assign(cpu="B"), tmp_path)
    speeds.record_kernels(full, tmp_path)
    table = speeds.record_kernels(full.assign(seconds=full["seconds"] / 2), tmp_path)
    assert list(table["cpu"].unique()) == ["A", "B"] and len(table) == 8
    assert table.loc[table["cpu"] == "A", "seconds"].sum() == pytest.approx(rows["seconds"].sum() / 2)


def test_the_recorded_rows_are_whole():
    table = speeds.read_kernels()
    assert len(table)
    for (_, size), part in table.groupby(["cpu", "size"]):
        assert 0 < page.rest(part, size) < 0.5 and (part["low"] <= part["seconds"]).all()
        assert (part["seconds"] <= part["high"]).all() and (page.shares(part, size)["peak"] < 1).all()
