"""The network: shapes, plan, and settings that cannot be built."""
import paddle
import pytest

from asymmlib.network import (
    FEATURES,
    ROWS,
    SQUEEZE,
    STEM_CHANNELS,
    AsymmetricalBottleneck,
    AsymmNet,
    asymmnet_large,
    asymmnet_small,
    make_divisible,
    plan_blocks,
)


@pytest.mark.parametrize(("channels", "rounded"), [(1, 8), (8, 8), (8.1, 16), (16 * 0.35, 8), (112 * 0.75, 88)])
def test_make_divisible_rounds_up(channels, rounded):
    assert make_divisible(channels) == rounded


@pytest.mark.parametrize("build", [asymmnet_large, asymmnet_small])
def test_output_shape(build):
    network = build(num_classes=16)
    network.eval()
    for size in (32, 65):
        assert network(paddle.zeros([2, 3, size, size])).shape == [2, 16]


@pytest.mark.parametrize("build", [AsymmNet, asymmnet_large, asymmnet_small])
def test_a_network_without_further_words(build):
    """Of the paper's 1000 classes, full width and rate 1; a single class is a network, too."""
    network, plans = build(), plan_blocks("small" if build is asymmnet_small else "large")
    assert network.classifier.weight.shape == [1280, 1000] and (network.width, network.asymmrate) == (1.0, 1)
    assert network.dropout.p == 0.2 and network.port == "pytorch"
    assert tuple(block.plan for block in network.blocks) == plans
    spread = network.classifier.weight.numpy().std()  # of 1.28 million draws
    assert spread == pytest.approx(0.01, rel=0.01) and not network.classifier.bias.numpy().any()
    assert build(num_classes=1).classifier.weight.shape == [1280, 1]


def test_rate_zero_is_the_inverted_residual():
    for plan in plan_blocks("large", asymmrate=0):
        assert plan.copies == 0 and plan.new in (0, plan.depthwise)


def test_depthwise_width_grows_by_rate_times_input():
    for rate in (1, 2):
        for base, plan in zip(plan_blocks(asymmrate=0), plan_blocks(asymmrate=rate), strict=True):
            if plan.expands:
                assert plan.depthwise == base.depthwise + rate * plan.c_in
                assert plan.new == base.depthwise - rate * plan.c_in


def test_plan_follows_the_table():
    plans = plan_blocks("small")
    assert [plan.out for plan in plans] == [row.out for row in ROWS["small"]]
    assert [plan.c_in for plan in plans[1:]] == [plan.out for plan in plans[:-1]]


def test_the_paper_s_channel_counts_are_multiples_of_8():
    """So rounding up hides no wrong number: with the counts of layers at width 1.0 every row is the paper's."""
    for rows in ROWS.values():
        assert all(row.expansion % 8 == row.out % 8 == 0 for row in rows)
    assert SQUEEZE == {"large": 960, "small": 576} and STEM_CHANNELS == 16 and FEATURES == 1280


def test_shortcut_adds_the_input():
    plan = next(plan for plan in plan_blocks() if plan.shortcut and plan.expands)
    block = AsymmetricalBottleneck(plan)
    block.eval()
    paddle.assign(paddle.zeros_like(block.project.bn.weight), block.project.bn.weight)
    x = paddle.randn([1, plan.c_in, 8, 8])
    assert paddle.equal_all(block(x), x)


def test_dropout_acts_in_train_mode_only():
    network = asymmnet_small(num_classes=3, dropout=0.9)
    x = paddle.randn([2, 3, 32, 32])
    network.eval()
    assert paddle.equal_all(network(x), network(x))
    network.dropout.train()
    assert not paddle.equal_all(network(x), network(x))


@pytest.mark.parametrize(("settings", "message"), [
    ({"asymmrate": -1}, "asymmrate is -1; it must be an integer of at least 0"),
    ({"asymmrate": 1.0}, "asymmrate is 1.0; it must be an integer"),
    ({"asymmrate": True}, "asymmrate is True"),
    ({"width": 0}, "width is 0; it must be a number above 0"),
    ({"width": "1"}, "width is '1'"),
    ({"width": float("inf")}, "width is inf"),
    ({"width": 0.35, "asymmrate": 2}, "block 2 at width 0.35 with asymmrate 2 cannot be built"),
    ({"asymmrate": 3}, "block 2 at width 1.0 with asymmrate 3 cannot be built"),
    ({"variant": "tiny"}, "unknown variant 'tiny'; known: large, small"),
    ({"port": "jax"}, "unknown port 'jax'; known: pytorch, gluon"),
    ({"port": "gluon", "width": 1.25}, "block 0 at width 1.25 .* Gluon port cannot be built"),
    ({"num_classes": 0}, "num_classes is 0"),
    ({"num_classes": 16.0}, "num_classes is 16.0"),
    ({"dropout": 1.0}, "dropout is 1.0"),
])
def test_wrong_settings_say_which_and_why(settings, message):
    with pytest.raises(ValueError, match=message):
        AsymmNet(**settings)
