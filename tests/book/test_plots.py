"""Plots: every axis is labelled, data arrives where it is drawn, and empty data is refused."""
import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from asymmbook.figures import comparison, plots, tuning

HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 2.0, 1.0], "eval_loss": [9.0, 2.5, 1.5],
                        "train_top1": [0.1, 0.4, 0.7], "eval_top1": [0.1, 0.3, 0.6]})
COSTS = pd.DataFrame({"label": ["AsymmNet-Large", "MobileNetV2"], "macs": [7e7, 1e8], "params": [5e6, 2e6],
                      "last_eval_top1": [0.87, 0.80]})


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_grid_of_pictures():
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (8, 9, 3), np.uint8), rng.integers(0, 256, (8, 9), np.uint8)]
    figure = plots.sample_grid(pictures, ["sun", "key"])
    assert tuple(figure.get_size_inches()) == (12, 12) and len(figure.axes) == 16
    assert [axis.get_title() for axis in figure.axes[:2]] == ["label: sun", "label: key"]
    assert figure.axes[1].images[0].get_array().shape == (8, 9, 3), "a grey picture is shown in grey"
    assert not any(axis.axison for axis in figure.axes)


def test_curves_hold_every_run_and_split():
    figure = plots.plot_curves({"a": HISTORY, "b": HISTORY})
    for axis, column in zip(figure.axes, ("loss", "top1"), strict=True):
        drawn = [line.get_ydata().tolist() for line in axis.lines]
        assert drawn == 2 * [HISTORY[f"train_{column}"].tolist(), HISTORY[f"eval_{column}"].tolist()]
        assert axis.get_xlabel() == "epoch" and axis.get_ylabel() and axis.get_title()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "train split (dashed)"]


def test_bars_with_intervals():
    figure = plots.plot_bars(["a", "b"], [0.5, 0.25], [0.4, 0.2], [0.6, 0.35])
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.5, 0.25]
    assert [text.get_text() for text in figure.axes[0].texts] == ["50.0%", "25.0%"]
    segments = figure.axes[0].collections[0].get_segments()
    assert np.allclose([segment[:, 0] for segment in segments], [[0.4, 0.6], [0.2, 0.35]])


@pytest.mark.parametrize("cost", ["macs", "params"])
def test_tradeoff(cost):
    axis = plots.plot_tradeoff(COSTS, cost).axes[0]
    points = [collection.get_offsets()[0].tolist() for collection in axis.collections]
    assert points == COSTS[[cost, "last_eval_top1"]].to_numpy().tolist() and axis.get_xscale() == "log"


def test_confusion_counts_are_written_in_the_cells():
    figure = plots.plot_confusion([[3, 1], [0, 4]], ["sun", "key"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["3", "1", "", "4"]
    assert figure.axes[0].get_ylabel() == "true class" and figure.axes[0].get_xlabel() == "predicted class"


def test_schedule_and_mistakes():
    axis = plots.plot_schedule([1.0, 0.0, 1.0, 0.0], [1.0, 0.9, 0.8, 0.7], batches_per_epoch=2).axes[0]
    assert axis.lines[0].get_xdata().tolist() == [0, 0.5, 1, 1.5]
    figure = plots.plot_mistakes([np.zeros((4, 4), np.uint8)] * 5, ["sun"] * 5, ["key"] * 5, [0.9] * 5)
    assert len(figure.axes) == 6 and figure.axes[4].get_title() == "sun\nseen as\nkey (90%)"


@pytest.mark.parametrize("draw", [
    lambda: plots.sample_grid([], []), lambda: plots.plot_curves({}), lambda: plots.plot_bars([], []),
    lambda: plots.plot_tradeoff(COSTS.head(0)), lambda: plots.plot_confusion(np.zeros((0, 0)), []),
    lambda: plots.sample_grid([np.zeros((4, 4))], ["a", "b"]), lambda: plots.plot_tradeoff(COSTS, "watts")])
def test_nothing_to_plot_is_an_error(draw):
    with pytest.raises(ValueError, match="nothing to plot|labels|unknown cost"):
        draw()


FRONT = pd.DataFrame({"name": ["a", "b", "c"], "macs": [1e6, 2e6, 3e6], "params": [3e5, 2e5, 1e5],
                      "train_ms": [5, 6, 4], "top1": [0.7, 0.6, 0.8], "sd": [0.01, None, 0.02]})


def test_fronts_have_a_panel_a_cost_and_join_what_nothing_beats():
    figure = comparison.plot_fronts(FRONT, error="sd")
    assert [axis.get_xlabel().removesuffix(" (logarithmic)") for axis in figure.axes] == list(plots.UNITS.values())
    macs, params, _ = figure.axes
    assert macs.lines[0].get_xdata().tolist() == [1e6, 3e6] and params.lines[0].get_xdata().tolist() == [1e5]
    assert macs.lines[0].get_label().startswith("_") and macs.get_xscale() == "log"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]


def test_bands_reach_from_run_to_run():
    band = pd.DataFrame({"epoch": [1, 2], "mean": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.5], "runs": [3, 3]})
    figure = comparison.plot_bands({"a": band})
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.2, 0.4]
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == 0.1 and corners[:, 1].max() == 0.5
    assert figure.legends[0].get_texts()[0].get_text() == "a (3)"


def test_points_of_nearly_equal_cost_stand_side_by_side():
    places = comparison._side_by_side([2e7, 5e6, 2e7, 4e7])
    apart = np.diff(np.log(np.sort(places)))
    assert (apart > 0.99 * comparison.BESIDE * np.log(8)).all() and list(np.argsort(places)) == [1, 0, 2, 3]
    assert np.allclose(comparison._side_by_side([1e6, 1e7, 1e8]), [1e6, 1e7, 1e8])  # far apart: where they are
    assert list(comparison._side_by_side([3e6])) == pytest.approx([3e6])


def test_axes_name_small_costs_as_they_are():
    table = pd.DataFrame({"name": ["a", "b"], "train_ms": [0.7, 1.6], "top1": [0.5, 0.7], "sd": [0.1, 0.1]})
    (axis,) = comparison.plot_fronts(table, costs=("train_ms",), error="sd").axes
    assert axis.get_ylim()[0] < 0.4 and axis.xaxis.get_major_formatter()(0.8) == "0.8"


def test_differences_are_points_on_their_intervals():
    table = pd.DataFrame({"label": ["x", "y"], "mean": [0.02, -0.01], "low": [0.01, -0.03], "high": [0.03, 0.02],
                          "shown": [True, False]})
    figure = comparison.plot_differences({"a": table, "b": table.head(1)}, "title")
    _, line, point, *_ = figure.axes[0].lines
    assert line.get_xdata() == pytest.approx([1, 3]) and point.get_xdata() == pytest.approx([2])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["x", "y"]
    filled = [line.get_markerfacecolor() for line in figure.axes[0].lines[2::2]]
    assert filled[1] == "white" != filled[0] and [axis.get_title() for axis in figure.axes] == ["a", "b"]
    with pytest.raises(ValueError, match="nothing to plot"):
        comparison.plot_differences({}, "title")


def test_settings_are_lines_by_rate_and_the_chosen_one_has_a_ring():
    table = pd.DataFrame([("a", 1e-4, 0.02, 0.4, False), ("a", 1e-4, 0.01, 0.3, False), ("a", 1e-3, 0.01, 0.6, True),
                          ("b", 1e-4, 0.01, 0.5, True), ("b", 1e-3, 0.01, 0.2, False)],
                         columns=["network", "decay", "rate", "mean", "chosen"])
    figure = tuning.plot_settings(table)
    upper, lower = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["weight decay 0.0001", "weight decay 0.001"]
    assert upper.lines[0].get_xdata().tolist() == [0.01, 0.02] and upper.lines[0].get_ydata().tolist() == [0.3, 0.4]
    rings = [[ring.get_offsets().tolist() for ring in axis.collections] for axis in figure.axes]
    assert rings == [[[], [[0.01, 0.5]]], [[[0.01, 0.6]], []]]
    assert len({line.get_marker() for line in lower.lines}) == 2 and lower.get_xlabel() and upper.get_ylabel()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    with pytest.raises(ValueError, match="nothing to plot"):
        tuning.plot_settings(table.head(0))


def test_fronts_of_nothing():
    with pytest.raises(ValueError, match="nothing to plot"):
        comparison.plot_fronts(pd.DataFrame({"macs": [], "top1": [], "name": []}))
