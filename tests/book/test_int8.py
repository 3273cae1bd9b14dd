"""The recorded networks of 8 bits, and what the page says of them."""
import numpy as np
import pandas as pd
import pytest

from asymmbook.checkout import results_dir
from asymmbook.editions.catalogue import catalogue, foreign
from asymmbook.editions.outputs import texts
from asymmbook.evidence.int8 import CLEARED, FORMS, LAYERS, SCRATCH
from asymmbook.evidence.int8_layers import channel_ranges, clear_still_channels, still
from asymmbook.evidence.statistics import wilson
from asymmbook.figures.ranges import plot_ranges
from asymmbook.pages import int8
from asymmlib.deploy.checking import eager_logits
from asymmlib.runs import load_pretrained
from asymmlib.weights.released import RELEASED, find_released


@pytest.fixture(scope="module")
def table():
    return pd.read_csv(results_dir() / "int8.csv")


def test_every_network_and_form_is_recorded(table):
    forms = set(FORMS) - {CLEARED}
    assert {(row["network"], row["form"]) for _, row in table.iterrows()} == {
        *((network, form) for network in (*RELEASED, SCRATCH) for form in forms),
        *((network, CLEARED) for network in int8.CLEARABLE)}
    assert set(int8.layers()) == {int8.LABELS[network] for network in LAYERS}
    low, high = wilson(table["right"] / table["pictures"], table["pictures"])
    np.testing.assert_allclose(table[["low", "high"]].T, [low, high], atol=1e-5)
    assert table[["cpu", "threads", "versions", "python", "commit"]].notna().all(axis=None)
    whole = table[table["form"] == "float32"].set_index("network")
    for _, row in table.iterrows():
        before = whole.loc[row["network"]]
        assert row["right"] - row["gained"] + row["lost"] == before["right"]
        if row["form"] == "int8":
            assert row["bytes"] < 0.3 * before["bytes"]


def test_float32_is_what_the_cards_say(table):
    for network, row in table[table["form"] == "float32"].set_index("network").loc[list(RELEASED)].iterrows():
        test = find_released(network)[0]["accuracy"]["test"]
        assert (row["right"], row["pictures"]) == (test["right"], test["pictures"])


@pytest.mark.slow
def test_still_channels_answer_nothing():
    network = load_pretrained("mobilenet_v2").network
    ranges, images = channel_ranges(network), np.random.default_rng(0).normal(size=(4, 3, 64, 64)).astype(np.float32)
    dead, before = still(ranges), eager_logits(network, images)
    assert len(dead) == clear_still_channels(network) > 0
    np.testing.assert_array_equal(eager_logits(network, images), before)
    assert (channel_ranges(network).loc[dead.index, "range"] == 0).all()
    for name in ("asymmnet_large", "asymmnet_small"):
        assert still(channel_ranges(load_pretrained(name).network)).empty


def test_what_the_page_calls_ruined_is_and_clearing_mends_it(table):
    right = table.set_index(["network", "form"])["right"]
    bound = 0.03 * table["pictures"].iloc[0]
    for network in int8.CLEARABLE:
        assert right[network, int8.ONE_STEP] < right[network, "float32"] - 5 * bound
        assert right[network, CLEARED] > right[network, "float32"] - bound
        assert right[network, "int8"] > right[network, "float32"] - bound
    assert right["asymmnet_large", int8.ONE_STEP] > right["asymmnet_large", "float32"] - bound


def test_ranges_are_those_of_the_folded_weights():
    """A convolution and its batch norm as one: the same numbers."""
    import paddle
    from paddle import nn
    paddle.seed(0)
    network = nn.Sequential(nn.Conv2D(2, 2, 3, groups=2, bias_attr=False), nn.BatchNorm2D(2))
    network(paddle.randn([8, 2, 5, 5]))
    network.eval()
    table = channel_ranges(network)
    impulse = paddle.zeros([1, 2, 5, 5])
    impulse[:, :, 2, 2] = 1
    response = (network(impulse) - network(paddle.zeros([1, 2, 5, 5]))).abs().max([0, 2, 3])
    np.testing.assert_allclose(table["range"], response.numpy(), rtol=1e-4)
    assert list(table["kind"]) == ["depthwise"] * 2 and table["steps"].max() == pytest.approx(127)


@pytest.mark.slow
def test_what_the_page_says_is_in_both_languages(tmp_path):
    """With times and without, and where a difference is beyond chance."""
    for name in ("int8", "int8-layers"):
        frame = pd.read_csv(results_dir() / f"{name}.csv")
        frame.assign(p=0.01).to_csv(tmp_path / f"{name}.csv", index=False)
    rows = [{"network": network, "form": form, "image_size": 64, "ms": ms, "ms_low": ms - 0.1, "ms_high": ms + 0.1,
             "cpu": "Intel(R) Xeon(R) Processor", "threads": 2}
            for network in RELEASED for form, ms in (("float32", 1.0), ("int8", 0.5), ("OpenVINO float32", 1.0),
                                                     ("OpenVINO int8", 1.1))]
    ranges = {int8.LABELS[name]: channel_ranges(load_pretrained(name).network) for name in ("mobilenet_v2",
                                                                                            "asymmnet_large")}
    said = [int8.latency(tmp_path), int8.cost(), int8.cost(tmp_path), int8.summary(tmp_path),
            *(int8.cleared(name) for name in int8.CLEARABLE), *(int8.ruined(name) for name in int8.RUINED),
            *(int8.still_channels(table) for table in ranges.values())]
    pd.DataFrame(rows).to_csv(tmp_path / "int8-latency.csv", index=False)
    said += [int8.latency(tmp_path), int8.summary(tmp_path)]
    assert "Int8 is 2.0 times faster." in said[-2] and "no difference is shown" in said[-2]
    assert "0.50 (0.40–0.60)" in said[-1] and "ms a picture" not in said[3]
    output = [{"output_type": "display_data", "data": {"text/markdown": text}, "metadata": {}} for text in said]
    left = {chinese: foreign(chinese, "zh_CN") for part in output
            for _, chinese in texts(part, "zh_CN", catalogue("zh_CN"))}
    assert not {text: words for text, words in left.items() if words}
    assert plot_ranges(ranges, int8.layers()).axes
