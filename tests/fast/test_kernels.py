"""Every kernel against Paddle's own operation, the cache, the stock path, and two threads at once."""
import copy
import os
import platform
import shutil
import subprocess
import sys
import threading
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn
from paddle.vision.models import resnet
from processes import run_python

from asymmbook.checkout import project_root
from asymmlib import fast
from asymmlib.fast import kernels, layers
from asymmlib.fast.kernels import library, run_chain, say_once
from asymmlib.models import create_model
from asymmlib.network import AsymmetricalBottleneck, BlockPlan, ConvBNAct, SqueezeExcitation

needs_kernels = pytest.mark.skipif(library() is None, reason="no kernels here: the stock path is all there is")
LIMIT = 1e-5
few = settings(max_examples=25, deadline=None, derandomize=True)
sides = st.integers(1, 40)


def inferring(layer):
    """The layer in eval mode; Paddle 2's own `eval` returns nothing."""
    layer.eval()
    return layer


def outcome(run, layer, *inputs):
    """Output and all gradients, as arrays, for a fixed gradient of the output."""
    for tensor in (*inputs, *layer.parameters()):
        if tensor.grad is not None:
            tensor.clear_grad()
    y = run(*inputs)
    y.backward(paddle.to_tensor(np.random.default_rng(1).standard_normal(y.shape).astype("float32")
                                .astype(str(y.dtype).split(".")[-1])))
    tensors = [*inputs, *(p for p in layer.parameters() if not p.stop_gradient)]
    running = [buffer for name, buffer in layer.state_dict().items() if name.endswith(("_mean", "_variance"))]
    return [tensor.numpy() for tensor in (y, *(t.grad for t in tensors if t.grad is not None), *running)]


def agree(layer, shapes, picture_gradient=True, as_good_as_stock=False):
    """Largest error of the fast path, relative to the largest value in float64, must not exceed the limit.

    The reference is the stock path in float64, so that Paddle's own rounding does not count as an error of ours. Where
    rounding is amplified on the way (several layers), `as_good_as_stock` allows three times the error of float32 there.
    """
    exact = copy.deepcopy(layer).to(dtype="float64")
    quick = fast.accelerate(copy.deepcopy(layer))
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape) for shape in shapes]

    def tensors(kind):
        return [paddle.to_tensor(value.astype("float32").astype(kind), stop_gradient=not picture_gradient)
                for value in values]

    ours = outcome(quick, quick, *tensors("float32"))
    stock = outcome(layer, layer, *tensors("float32")) if as_good_as_stock else ours
    true = outcome(exact, exact, *tensors("float64"))
    for a, b, c in zip(ours, true, stock, strict=True):
        assert a.shape == b.shape and a.dtype == np.float32
        allowed = 3 * np.abs(c - b).max() if as_good_as_stock else 0
        assert np.abs(a - b).max() <= max(LIMIT * max(np.abs(b).max(), 1e-3), allowed)


@needs_kernels
@few
@given(n=st.integers(1, 4), c=st.integers(1, 9), h=sides, w=sides, kernel=st.sampled_from([3, 5]),
       stride=st.sampled_from([1, 2]))
def test_depthwise(n, c, h, w, kernel, stride):
    agree(nn.Conv2D(c, c, kernel, stride, kernel // 2, groups=c), [(n, c, h, w)])


@needs_kernels
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(61, 45), (38, 64), (3, 700)])
def test_depthwise_in_bands_of_rows(kernel, stride, size):
    """So many channels that a picture does not stay in cache; 41 are no whole number of vectors."""
    agree(nn.Conv2D(41, 41, kernel, stride, kernel // 2, groups=41), [(2, 41, *size)])


def plan(c_in, new, copies, out, kernel, stride, se):
    return BlockPlan(0, c_in, new, copies, new + 2 * copies * c_in, out, kernel, stride, se, "hardswish",
                     shortcut=stride == 1 and out == c_in)


few_channels = st.integers(2, 5)
plans = st.builds(plan, c_in=few_channels, new=st.integers(4, 9), copies=st.integers(0, 2), out=few_channels,
                  kernel=st.sampled_from([3, 5]), stride=st.sampled_from([1, 2]), se=st.booleans())


@pytest.mark.slow
@needs_kernels
@settings(few, max_examples=60)
@given(plan=plans, n=st.integers(1, 4), h=sides, w=sides, training=st.booleans(), seed=st.integers(0, 99))
def test_bottleneck_whose_concatenation_and_inner_outputs_are_never_made(plan, n, h, w, training, seed):
    paddle.seed(seed)
    block = AsymmetricalBottleneck(plan)
    for name, value in block.named_parameters():  # batch norm and biases that do something
        if not name.endswith("weight") or value.ndim == 1:
            value.set_value(value + 0.3 * paddle.randn(value.shape))
    block.train() if training else block.eval()
    if training:
        n, h, w = n + 2, h + 8, w + 8
    agree(block, [(n, plan.c_in, h, w)], as_good_as_stock=True)


@needs_kernels
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_bottleneck_in_bands_of_rows(kernel, stride):
    paddle.seed(0)
    block = AsymmetricalBottleneck(plan(16, 40, 1, 16, kernel, stride, se=True))
    agree(block, [(3, 16, 50, 47)], as_good_as_stock=True)


@pytest.fixture
def chains(monkeypatch):
    """The chains that run: for each the numbers of stages of its blocks."""
    found = []
    monkeypatch.setattr(layers, "run_chain", lambda x, blocks: (found.append([len(block.stages) for block in blocks]),
                                                                run_chain(x, blocks))[1])
    return found


@needs_kernels
@pytest.mark.parametrize(("copies", "se"), [(0, False), (1, False), (1, True)])
def test_a_bottleneck_is_a_chain_and_leaves_the_gradient_it_is_given_alone(chains, copies, se):
    layer, x = fast.accelerate(AsymmetricalBottleneck(plan(4, 8, copies, 4, 3, 1, se))), paddle.randn([2, 4, 9, 9])
    x.stop_gradient = False
    z = layer(x * 1.0)
    given = paddle.randn(z.shape)
    before = given.numpy().copy()
    z.backward(given)
    assert chains == [[3]] and np.array_equal(given.numpy(), before)


def bottleneck_of_resnet(stride=1, **settings):
    """One whose shortcut is a convolution, as at the beginning of a stage."""
    shortcut = nn.Sequential(nn.Conv2D(8, 16, 1, stride, bias_attr=False), nn.BatchNorm2D(16))
    return resnet.BottleneckBlock(8, 4, stride, shortcut, **settings)


@needs_kernels
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [bottleneck_of_resnet, lambda: bottleneck_of_resnet(2),
                                  lambda: resnet.BottleneckBlock(16, 4)])
def test_bottlenecks_of_resnet_are_one_chain(chains, make, training):
    paddle.seed(1)
    stage = nn.Sequential(make(), resnet.BottleneckBlock(16, 4))  # the second's gradients enter the first's shortcut
    for value in stage.parameters():
        if value.ndim == 1 and not value.stop_gradient:  # batch norm that does something
            value.set_value(value + 0.3 * paddle.randn(value.shape))
    stage.train() if training else stage.eval()
    agree(stage, [(4, make().conv1._in_channels, 14, 13)], as_good_as_stock=True)
    assert chains == [[3, 3]]


@needs_kernels
@pytest.mark.parametrize(("change", "wanted"), [
    (lambda block: block.conv2.register_forward_post_hook(lambda *_: None), [[1], [1], [1]]),
    (lambda block: block.relu.register_forward_post_hook(lambda *_: None), [[1], [1], [1], [1]]),
    (lambda block: setattr(block, "relu", nn.Hardswish()), [[1, 1, 1], [1]]),
    (lambda block: setattr(block, "bn3", nn.GroupNorm(4, 16)), [[1, 1, 1], [1]]),
    (lambda block: setattr(block, "downsample", nn.Conv2D(8, 16, 1, bias_attr=False)), [[1, 1, 1], [1]]),
    (lambda block: setattr(block, "downsample", nn.Sequential(block.downsample, nn.ReLU())), [[1, 1, 1], [1]])])
def test_an_unusual_bottleneck_of_resnet_computes_what_paddle_does(chains, change, wanted):
    paddle.seed(1)
    block = bottleneck_of_resnet()
    change(block)
    agree(block, [(4, 8, 14, 13)], as_good_as_stock=True)
    assert chains == wanted


@needs_kernels
@pytest.mark.parametrize(("inputs", "stride"), [(16, 2), (8, 1)])
def test_a_shortcut_of_another_shape_is_refused_as_paddle_refuses_it(inputs, stride):
    block = fast.accelerate(resnet.BottleneckBlock(inputs, 4, stride))
    with pytest.raises(ValueError, match="[Bb]roadcast"):
        block(paddle.randn([2, inputs, 9, 9]))


@needs_kernels
def test_a_shortcut_of_one_channel_is_broadcast_as_by_paddle():
    paddle.seed(1)
    agree(inferring(resnet.BottleneckBlock(1, 4)), [(4, 1, 9, 9)], as_good_as_stock=True)


def wide_first_of_resnet(shortcut):
    block = bottleneck_of_resnet() if shortcut else resnet.BottleneckBlock(8, 2)
    block.conv1 = nn.Conv2D(8, block.conv2._in_channels, 3, padding=1, bias_attr=False)
    return block


def exchanged(copies, se, part, layer):
    """A bottleneck of 4 channels, 8 inside, one part of which is another."""
    block = AsymmetricalBottleneck(plan(4, 8, copies, 4, 3, 1, se))
    setattr(block, part, layer)
    return block


@needs_kernels
@pytest.mark.parametrize("picture_gradient", [False, True])
@pytest.mark.parametrize("make", [
    lambda: wide_first_of_resnet(False), lambda: wide_first_of_resnet(True),
    lambda: exchanged(0, False, "expand", ConvBNAct(4, 8, 3)),
    lambda: exchanged(1, False, "expand", ConvBNAct(4, 8, 3)),
    lambda: exchanged(1, False, "depthwise", ConvBNAct(16, 16, 3)),
    lambda: exchanged(0, True, "project", ConvBNAct(8, 4, 3, activation=None)),
    lambda: exchanged(0, False, "project", ConvBNAct(8, 1, activation=None))])
def test_a_block_with_an_exchanged_convolution_computes_what_paddle_does(make, picture_gradient):
    paddle.seed(1)
    agree(make(), [(4, 8 if isinstance(make(), resnet.BottleneckBlock) else 4, 9, 9)], picture_gradient, True)


@needs_kernels
@pytest.mark.parametrize(("part", "inputs", "outputs"), [("reduce", 4, 8), ("restore", 8, 5)])
def test_squeeze_and_excitation_that_does_not_fit_is_refused_as_paddle_refuses_it(part, inputs, outputs):
    block = AsymmetricalBottleneck(plan(4, 8, 0, 4, 3, 1, True))
    inputs = inputs if part == "reduce" else block.se.restore._in_channels
    setattr(block.se, part, nn.Conv2D(inputs, outputs, 1))
    with pytest.raises(ValueError):
        fast.accelerate(block)(paddle.randn([2, 4, 9, 9]))


@needs_kernels
def test_bottlenecks_of_grouped_convolutions_keep_the_rest_on_the_kernels(chains):
    paddle.seed(1)
    agree(bottleneck_of_resnet(groups=2, base_width=64), [(4, 8, 14, 13)], as_good_as_stock=True)
    assert chains == [[1], [1], [1]]


@needs_kernels
def test_resnet_is_two_chains_around_its_pooling(chains):
    network, x = inferring(create_model("resnet50", 4)), paddle.randn([2, 3, 64, 64])
    usual = network(x).numpy()
    assert np.allclose(fast.accelerate(network)(x).numpy(), usual, atol=1e-4 * np.abs(usual).max())
    assert chains == [[1], [3] * 16]


@needs_kernels
@pytest.mark.parametrize(("name", "wanted"), [("asymmnet_small", 14), ("mobilenet_v2", 20), ("mobilenet_v3_large", 18)])
def test_a_network_is_one_chain_and_a_hook_leaves_its_block_to_paddle(chains, name, wanted):
    network = fast.accelerate(inferring(create_model(name, 4)))
    x, called = paddle.randn([2, 3, 32, 32]), []
    usual, found = network(x).numpy(), chains.copy()
    assert len(found[0]) == wanted
    norms = [layer for layer in network.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    norms[len(norms) // 2].register_forward_post_hook(lambda *_: called.append(1))
    assert np.allclose(network(x).numpy(), usual, atol=1e-4 * np.abs(usual).max()) and called == [1]
    assert len(chains) > 2 * len(found)


@needs_kernels
def test_hooks_and_exchanged_parts_of_a_bottleneck_are_called():
    layer, x = AsymmetricalBottleneck(plan(4, 8, 1, 4, 3, 1, True)), paddle.randn([2, 4, 9, 9])
    inferring(fast.accelerate(layer))
    called, usual = [], layer(x).numpy()
    hook = layer.depthwise.bn.register_forward_post_hook(lambda *_: called.append("bn"))
    assert np.allclose(layer(x).numpy(), usual, atol=1e-5) and called == ["bn"]
    hook.remove()
    layer.se = nn.Identity()
    assert not np.allclose(layer(x).numpy(), usual, atol=1e-3)


@needs_kernels
@few
@given(n=st.integers(1, 6), c_in=st.integers(1, 40), c_out=st.integers(1, 40), h=sides, w=sides)
def test_pointwise(n, c_in, c_out, h, w):
    agree(nn.Conv2D(c_in, c_out, 1), [(n, c_in, h, w)])


@needs_kernels
@few
@given(n=st.integers(1, 3), c_in=st.integers(1, 9), c_out=st.integers(1, 9), h=sides, w=sides,
       kernel=st.sampled_from([1, 3, 5, 7]), stride=st.integers(1, 3))
def test_dense(n, c_in, c_out, h, w, kernel, stride):
    agree(nn.Conv2D(c_in, c_out, kernel, stride, kernel // 2), [(n, c_in, h, w)])


@needs_kernels
@few
@given(n=st.integers(1, 4), h=st.integers(2, 70), w=st.integers(2, 70), kernel=st.sampled_from([3, 5]),
       stride=st.sampled_from([1, 2]))
def test_stem(n, h, w, kernel, stride):
    agree(nn.Conv2D(3, 16, kernel, stride, kernel // 2, bias_attr=False), [(n, 3, h, w)], picture_gradient=False)


@needs_kernels
@pytest.mark.parametrize("channels", [1, 8, 16, 21, 40])
@pytest.mark.parametrize("stride", [1, 2])
def test_stem_of_any_width(channels, stride):
    agree(nn.Conv2D(3, channels, 3, stride, 1), [(3, 3, 35, 40)], picture_gradient=False)


@needs_kernels
@few
@given(n=st.integers(2, 5), c=st.integers(2, 12), h=st.integers(2, 20), w=st.integers(2, 20),
       groups=st.booleans(), training=st.booleans(), seed=st.integers(0, 99))
def test_batch_norm(n, c, h, w, groups, training, seed):
    # hard-swish has no jump in its slope at which rounding could decide; ReLU is tested by the whole networks
    paddle.seed(seed)
    layer = ConvBNAct(c, c, 3 if groups else 1, groups=c if groups else 1)
    layer.train() if training else layer.eval()
    if training:
        n, h, w = n + 2, h + 4, w + 4  # few numbers make a variance near 0, whose gradient loses digits in any order
    agree(layer, [(n, c, h, w)])


@needs_kernels
@few
@given(activation=st.sampled_from(["hardswish", None]), n=st.integers(2, 4), h=st.integers(5, 20))
def test_activation(activation, n, h):
    agree(inferring(ConvBNAct(8, 16, activation=activation)), [(n, 8, h, h)])


@needs_kernels
@few
@given(n=st.integers(1, 4), c=st.integers(1, 5), h=sides, w=sides)
def test_squeeze_and_excitation_with_its_pool(n, c, h, w):
    paddle.seed(1)
    agree(SqueezeExcitation(8 * c, 8), [(n, 8 * c, h, w)])


@needs_kernels
def test_two_threads_at_once_give_what_one_gives():
    paddle.seed(0)
    layers = [fast.accelerate(inferring(ConvBNAct(24, 24, 3, groups=24, activation="hardswish"))) for _ in range(2)]
    pictures = [paddle.to_tensor(paddle.randn([4, 24, 33, 31]), stop_gradient=False) for _ in layers]
    alone = [outcome(layer, layer, x) for layer, x in zip(layers, pictures, strict=True)]
    together = [[], []]

    def work(index):  # outputs and all gradients
        for _ in range(20):
            together[index].append(outcome(layers[index], layers[index], pictures[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for wanted, found in zip(alone, together, strict=True):
        assert len(found) == 20
        assert all(np.array_equal(a, b) for result in found for a, b in zip(wanted, result, strict=True))


@pytest.mark.parametrize("inputs", [paddle.zeros([2, 8, 4, 4], "float64"), paddle.zeros([0, 8, 4, 4])])
def test_other_tensors_take_the_stock_path_and_it_is_said(inputs):
    layer = fast.accelerate(ConvBNAct(8, 8).to(dtype=inputs.dtype))
    say_once.cache_clear()
    if fast.is_accelerated(layer):
        refused = suppress(ValueError) if not inputs.size else nullcontext()  # by Paddle 2 itself, where it is empty
        with pytest.warns(UserWarning, match="Paddle's own kernels are used instead"), refused:
            inferring(layer)(inputs)


PROGRAM = """
import warnings
from asymmlib.base.startup import load_paddle
paddle = load_paddle()
from asymmlib import fast
from asymmlib.fast import kernels
from asymmlib.network import asymmnet_small
network = fast.accelerate(asymmnet_small(4))
print(fast.is_accelerated(network))
fast.accelerate(asymmnet_small(4))
loss = network(paddle.randn([2, 3, 32, 32])).sum()
loss.backward()
print(float(loss))
"""


def program(**environment):
    return run_python("-c", PROGRAM, cwd=project_root(), env=os.environ | {"OMP_NUM_THREADS": "1"} | environment)


@pytest.mark.slow
def test_no_compiler(tmp_path):
    done = program(PATH=str(tmp_path), ASYMMLIB_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0 and done.stdout.startswith("False"), done.stderr
    assert done.stderr.count("no fast kernels here (") == 1


@pytest.mark.slow
@needs_kernels
def test_a_damaged_cache_entry_is_made_anew(tmp_path):
    entry = Path(shutil.copy(library()._name, tmp_path))  # it was compiled by the first test of a machine
    assert program(ASYMMLIB_CACHE=str(tmp_path)).stdout.startswith("True")
    assert list(tmp_path.glob("*.so")) == [entry]
    whole = entry.read_bytes()
    entry.write_bytes(whole[:len(whole) // 2])
    assert program(ASYMMLIB_CACHE=str(tmp_path)).stdout.startswith("True")
    assert [path.read_bytes() for path in tmp_path.glob("*.so")] == [whole] or entry.stat().st_size > len(whole) // 2
    entry.write_bytes(b"")  # and without a compiler: the stock path
    done = program(ASYMMLIB_CACHE=str(tmp_path), PATH=str(tmp_path))
    assert done.returncode == 0 and done.stdout.startswith("False"), done.stderr


@needs_kernels
@pytest.mark.parametrize("name", ["LAYER", "TENSORS"])
def test_structs_of_another_size_take_the_stock_path_and_it_is_said(monkeypatch, name):
    monkeypatch.setattr(kernels, name, (*getattr(kernels, name), "one more"))
    say_once.cache_clear()
    with pytest.warns(UserWarning, match=f"struct {name.title()} has .* of different versions"):
        assert library.__wrapped__() is None


MEMORY = """
import resource
from asymmlib.fast.native import tune_malloc
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
tuned = tune_malloc(), tune_malloc()
kept = bytearray(10 << 20)
print(tuned, (peak() - before) // 1024)
"""


@pytest.mark.slow
def test_the_memory_settings_reserve_addresses_and_no_memory():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, cwd=project_root())
    tuned, mebibytes = done.stdout.rsplit(maxsplit=1)
    assert tuned == str((platform.libc_ver()[0] == "glibc",) * 2), done.stderr
    assert int(mebibytes) < 100


SIGNALS = """
import signal, time
import paddle
from paddle import nn
from asymmlib.fast import accelerate, is_accelerated
paddle.seed(0)
network = accelerate(nn.Sequential(nn.Conv2D(320, 64, 1), nn.ReLU(), nn.Conv2D(64, 320, 1)))
x = paddle.randn([4, 320, 16, 16])
def answer():
    network.clear_gradients()
    y = network(x)
    y.sum().backward()
    return [y.numpy().tobytes(), *(p.grad.numpy().tobytes() for p in network.parameters())]
expected, came, calls, begun = answer(), [], 0, time.monotonic()
signal.signal(signal.SIGALRM, lambda number, frame: came.append(number))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
while time.monotonic() - begun < 3:
    assert answer() == expected
    calls += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(is_accelerated(network), calls > 3, len(came) > 100)
"""


@needs_kernels
@pytest.mark.slow
def test_a_signal_while_the_kernels_work_changes_no_bit():
    """oneDNN's matrix product has its stack on the heap: a signal's frame there would end the process, or worse."""
    done = run_python("-W", "ignore", "-c", SIGNALS, cwd=project_root(), timeout=120,
                      env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stdout.split()) == (0, ["True"] * 3), (done.stdout, done.stderr[-2000:])


THREADS = """
import numpy as np
import paddle
from paddle import nn
from asymmlib.fast import accelerate, is_accelerated
paddle.seed(0)
network, x = accelerate(nn.Conv2D(9, 12, 5, 1, 2)), paddle.randn([3, 9, 24, 20])
x.stop_gradient = False
def answer():
    x.clear_gradient()
    network.clear_gradients()
    network(x).square().sum().backward()
    return [x.grad.numpy().tobytes(), *(p.grad.numpy().tobytes() for p in network.parameters())]
print(is_accelerated(network), len({tuple(answer()) for _ in range(100)}))
"""


@needs_kernels
@pytest.mark.slow
def test_threads_that_add_to_the_same_pixels_give_equal_bits():
    done = run_python("-W", "ignore", "-c", THREADS, cwd=project_root(), timeout=120,
                      env={**os.environ, "OMP_NUM_THREADS": "4"})
    assert (done.returncode, done.stdout.split()) == (0, ["True", "1"]), (done.stdout, done.stderr[-2000:])


@pytest.mark.parametrize(("system", "machine"), [("Windows", "AMD64"), ("Linux", "aarch64"), ("Darwin", "arm64")])
def test_other_platforms_are_named(monkeypatch, system, machine):
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    say_once.cache_clear()
    with pytest.warns(UserWarning, match=f"this is {system} on {machine}"):
        assert library.__wrapped__() is None
