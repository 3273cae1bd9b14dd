"""Counts against the authors' code, to the last integer, in two ways."""
from dataclasses import FrozenInstanceError

import numpy as np
import paddle
import pandas as pd
import pytest

from asymmbook.evidence.reference import REFERENCE
from asymmlib.complexity import (
    channel_table,
    costs_by_block,
    count,
    formula,
    published_params,
    reached_channels,
)
from asymmlib.models import create_model
from asymmlib.network import AsymmetricalBottleneck, AsymmNet, BlockPlan, asymmnet_small

OFFICIAL = pd.read_csv(REFERENCE / "official_complexity.csv")
RUNNABLE = OFFICIAL[OFFICIAL["status"] == "ok"]


def _numbers(cost):
    return [cost.params, cost.macs, cost.macs_of("pointwise"), cost.macs_of("depthwise"), cost.macs_of("vanilla"),
            cost.activations, published_params(cost)]


@pytest.mark.slow
@pytest.mark.parametrize("row", list(RUNNABLE.itertuples()),
                         ids=lambda row: f"{row.variant}-{row.width}-r{row.asymmrate}")
def test_official_counts_are_ours_by_hooks_and_by_formula(row):
    expected = [int(value) for value in (row.params, row.macs, row.macs_pointwise, row.macs_depthwise,
                                         row.macs_vanilla, row.acts_conv, row.published_counter_params)]
    hooks = count(AsymmNet(row.variant, 1000, row.width, row.asymmrate))
    assert _numbers(hooks) == expected
    assert _numbers(formula(row.variant, row.width, row.asymmrate)) == expected


def test_there_are_22_runnable_rows_and_two_refused_ones():
    assert len(RUNNABLE) == 22
    refused = OFFICIAL[OFFICIAL["status"] != "ok"]
    assert len(refused) == 2
    for row in refused.itertuples():
        with pytest.raises(ValueError, match="block 2 at width 0.35 with asymmrate 2 cannot be built"):
            AsymmNet(row.variant, 1000, row.width, row.asymmrate)
        with pytest.raises(ValueError, match="block 2 at width 0.35"):
            formula(row.variant, row.width, row.asymmrate)


def _official_name(name):
    """Our name of a layer of Large -> the one in the authors' PyTorch code."""
    for ours, theirs in (("stem.conv", "first_block.0"), ("stem.bn", "first_block.1"), ("blocks.", "asymm_block."),
                         (".depthwise.", ".dw_conv."), (".project.", ".pw_conv_linear."), (".se.reduce", ".se.out.0"),
                         (".se.restore", ".se.out.2"), ("head.conv", "last_block.0"), ("head.bn", "last_block.1"),
                         ("features", "last_block.4"), ("classifier", "output")):
        name = name.replace(ours, theirs)
    return name


def test_every_official_layer():
    expected = pd.read_csv(REFERENCE / "official_layers_large_1.0_r1.csv")
    layers = formula("large").layers
    assert [_official_name(name) for name in layers["name"]] == list(expected["name"])
    shapes = layers[["in_shape", "out_shape"]].map(lambda shape: "x".join(map(str, shape)))
    assert list(layers["kind"]) == list(expected["kind"])
    for column in ("in_shape", "out_shape"):
        assert list(shapes[column]) == list(expected[column].astype(str))
    for column in ("params", "macs"):
        assert list(layers[column]) == list(expected[column])


@pytest.mark.parametrize(("variant", "size"), [("large", 128), ("small", 65), ("small", 256)])
def test_formula_equals_hooks_at_other_sizes(variant, size):
    built = count(AsymmNet(variant, 16), (1, 3, size, size)).layers
    pd.testing.assert_frame_equal(built, formula(variant, num_classes=16, size=size).layers)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "params", "macs"), [
    ("resnet50", 25_557_032, 4_089_184_256), ("vgg19", 143_667_240, 19_632_062_464),
    ("mobilenet_v2", 3_504_872, 300_774_272), ("mobilenet_v3_large", 5_483_032, 216_589_568)])
def test_baselines_have_their_textbook_costs(name, params, macs):
    model = create_model(name, 1000)
    cost = count(model)
    assert cost.params == params == sum(int(p.size) for p in model.parameters() if not p.stop_gradient)
    assert cost.macs == pytest.approx(macs, rel=0.002)  # other tools count some small layers differently


def test_parts_make_the_whole():
    cost = formula("small")
    parts = {kind: cost.macs_of(kind) for kind in ("pointwise", "depthwise", "vanilla", "linear")}
    assert cost.macs == sum(parts.values()) - parts["linear"] and 0 < parts["linear"] < parts["pointwise"]
    own = cost.layers[cost.layers["kind"] != "batchnorm"]
    assert cost.activations == sum(np.prod(shape) for shape in own["out_shape"]) > 1000


def test_counting_leaves_no_trace():
    network = asymmnet_small(num_classes=4)
    network.train()
    network.stem.eval()
    before = {key: value.numpy().copy() for key, value in network.state_dict().items()}
    count(network, (1, 3, 64, 64))
    assert network.training and not network.stem.training and network.head.training
    assert all((before[key] == value.numpy()).all() for key, value in network.state_dict().items())
    assert not any(layer._forward_post_hooks for layer in network.sublayers())


def test_errors_say_what_is_accepted():
    with pytest.raises(ValueError, match=r"input_shape is \(3, 224, 224\); it must be \[N, C, H, W\]"):
        count(asymmnet_small(), (3, 224, 224))
    with pytest.raises(ValueError, match="layer 0 is a Embedding"):
        count(paddle.nn.Sequential(paddle.nn.Embedding(3, 3)))
    with pytest.raises(ValueError, match="unknown variant 'medium'; known: large, small"):
        formula("medium")


def test_the_undercount_takes_a_kernel_for_its_side():
    layers = formula("large").layers
    wide = layers[layers["kernel"] > 1]
    missing = wide["params"] - wide["params"] // wide["kernel"]
    assert missing[wide["kind"] == "vanilla"].sum() == 288 and missing[wide["kind"] == "depthwise"].sum() == 84_544
    assert published_params(formula("large")) == 6_076_608 - 288 - 84_544 == 5_991_776


def test_hooks_are_removed_when_the_network_fails():
    network = asymmnet_small(num_classes=4)
    with pytest.raises(ValueError):
        count(network, (1, 5, 64, 64))
    assert network.training and not any(layer._forward_post_hooks for layer in network.sublayers())


def test_the_channel_table_by_hand():
    """Rows 0 and 2 of the paper's table 1: (3, 16, 16), which does not expand, and (3, 72, 24), from 24 channels."""
    table = channel_table()
    assert list(table.columns) == [(rate, part) for rate in (0, 1, 2) for part in ("new", "copied", "filtered")]
    assert list(table.index) == list(range(15)) and table.index.name == "block" and list(table.columns.names) == [
        "r", "channels"]
    assert table.loc[0].tolist() == [0, 0, 16] * 3
    assert table.loc[2].tolist() == [72, 0, 72, 48, 48, 96, 24, 96, 120]
    for rate in (0, 1, 2):                             # new channels and the copies on both sides are all there is
        parts = table[rate].loc[1:]
        assert (parts["new"] + parts["copied"] == parts["filtered"]).all()
    assert channel_table((1,), "small").shape == (11, 3)


def test_which_channels_an_input_channel_reaches():
    """One on each side by copying, all new ones by the first pointwise convolution."""
    plan = BlockPlan(0, 4, 6, 1, 14, 4, 3, 1, False, "relu", False)
    paddle.seed(0)
    reached = reached_channels(AsymmetricalBottleneck(plan))
    copies = np.eye(4, dtype=bool)
    np.testing.assert_array_equal(reached, np.hstack([copies, np.ones((4, 6), bool), copies]))


def test_costs_of_blocks_by_hand():
    """Block 0 of Large does not expand: 16 filters of 3 x 3 on 112 x 112 and 16 x 16 points, batch norm with each."""
    cost = formula("large")
    tables = costs_by_block(cost)
    assert list(tables) == ["macs", "params"]
    for table in tables.values():
        assert list(table.columns) == ["first pointwise", "depthwise", "squeeze-and-excitation", "second pointwise"]
        assert list(table.index) == list(range(15)) and table.index.name == "block"
    assert tables["macs"].loc[0].tolist() == [0, 144 * 112**2, 0, 256 * 112**2]
    assert tables["params"].loc[0].tolist() == [0, 144 + 32, 0, 256 + 32]
    assert tables["params"].loc[3, "squeeze-and-excitation"] == 96 * 24 + 24 + 24 * 96 + 96  # 96 filtered, a quarter
    blocks = cost.layers[cost.layers["name"].str.startswith("blocks.")]
    assert tables["macs"].to_numpy().sum() == blocks["macs"].sum()
    assert costs_by_block(formula("large", width=0.35, asymmrate=0))["macs"]["first pointwise"][0] == 0


@pytest.mark.parametrize("size", [31, 64.0, "64", True])
def test_a_picture_too_small_or_no_number_is_refused(size):
    with pytest.raises(ValueError, match=f"size is {size!r}; it must be an integer of at least 32"):
        formula("small", size=size)
    assert formula("small", size=32).macs < formula("small", size=33).macs


def test_a_count_is_frozen():
    with pytest.raises(FrozenInstanceError):
        formula("small").layers = None
