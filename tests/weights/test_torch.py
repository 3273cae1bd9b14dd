"""Files that the real PyTorch writes: each form that people save converts to the same logits, or is refused and helped.

The state is the recorded one of the authors' Small ×0.35 (`book/reference/`), whose logits their code gave; others are
drawn. Skipped where PyTorch is not installed (extra `bench`); four small files of it are tested in `test_written.py`.
"""
import argparse
import copy
import pickle
import tempfile

import numpy as np
import paddle
import pytest

from asymmbook.evidence.reference import REFERENCE, draw_batch, load_drawn, read_arrays
from asymmlib.__main__ import main
from asymmlib.network import AsymmNet
from asymmlib.weights.convert import convert
from asymmlib.weights.names import NAMINGS
from asymmlib.weights.official import export_official, load_official

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'asymmlib[bench]'")
prune = pytest.importorskip("torch.nn.utils.prune")
RECORDED = read_arrays("torch_small_0.35_r1")
STATE = {name.removeprefix("state/"): torch.tensor(value) for name, value in RECORDED.items() if name[:6] == "state/"}


class Part(torch.nn.Module):
    """A module that holds what stands below a prefix of a state dict, as the authors' modules do."""

    def __init__(self, state, below=""):
        super().__init__()
        for name in dict.fromkeys(name.partition(".")[0] for name in state):
            rest = {key.partition(".")[2]: value for key, value in state.items() if key.partition(".")[0] == name}
            if "" not in rest:
                self.add_module(name, Part(rest))
            elif name in ("running_mean", "running_var", "num_batches_tracked"):
                self.register_buffer(name, rest[""])
            else:
                self.register_parameter(name, torch.nn.Parameter(rest[""].clone()))

    def forward(self, x: torch.Tensor):
        return x


def network():
    return Part(STATE)


def logits(network):
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(RECORDED["input"])).numpy()


def difference(path, target, **options):
    """Largest difference of a converted file's logits from those that the authors' code gave."""
    return np.abs(logits(convert(path, target, **options)) - RECORDED["logits"]).max()


def with_prefix(prefix, state=None):
    return {f"{prefix}{name}": value for name, value in (STATE if state is None else state).items()}


def cast(dtype):
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in STATE.items()}


def trained():
    """What a training script keeps beside the state: a stepped optimiser, arguments, random states, counters."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.0, momentum=0.9)
    sum(value.sum() for value in model.parameters()).backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return {"optimizer": optimizer.state_dict(), "lr_scheduler": schedule.state_dict(), "epoch": 7, "best_acc1": 0.75,
            "args": argparse.Namespace(lr=0.1, data="x"), "rng": torch.get_rng_state(), "arch": "asymmnet_small",
            "scaler": {"scale": torch.tensor(65536.0)}}


def strided():
    """Views into one storage, channels last, and a transposed weight."""
    flat, state = torch.cat([value.flatten() for value in STATE.values() if value.is_floating_point()]), {}
    at = 0
    for name, value in STATE.items():
        state[name] = value
        if value.is_floating_point():
            state[name], at = flat[at:at + value.numel()].view(value.shape), at + value.numel()
        if value.ndim == 4 and min(value.shape) > 1:
            state[name] = value.contiguous(memory_format=torch.channels_last)
    state["output.weight"] = STATE["output.weight"].T.contiguous().T
    return state


def tagged():
    """Parameters with attributes, and tensors with some: PyTorch writes them by other functions."""
    state = {name: torch.nn.Parameter(value) if value.is_floating_point() else value for name, value in STATE.items()}
    state["output.bias"].tag = 1
    state["first_block.0.weight"] = STATE["first_block.0.weight"].clone()
    state["first_block.0.weight"].tag = {"a": 1}
    return state


def compiled():
    return {name.replace("asymm_block.", "asymm_block._orig_mod.", 1): value for name, value in
            with_prefix("_orig_mod.module.").items()}


def averaged():
    return torch.optim.swa_utils.AveragedModel(network()).state_dict()


def data_parallel():
    return torch.nn.DataParallel(network())


def lightning():
    return {"state_dict": {**with_prefix("model."), "criterion.weight": torch.ones(16)}, "epoch": 3, "global_step": 99,
            "pytorch-lightning_version": "2.5.0", "hyper_parameters": {"lr": 0.1}, "loops": {"fit_loop": {}},
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": torch.tensor(0.5)}}, "optimizer_states": [{}]}


def profiled():
    return STATE | {"total_ops": torch.zeros(1), "first_block.total_params": torch.zeros(1, dtype=torch.float64)}


class Settings(dict):
    """A class that only the script that saved the file knows."""


OLD = {"_use_new_zipfile_serialization": False}
# form: (what is saved, name of the file, options of torch.save)
FORMS = {
    "state dict": (lambda: STATE, "x.pth", {}),
    "ordered dict with metadata": (lambda: network().state_dict(), "x.pt", {}),
    "legacy": (lambda: STATE, "x.pth", OLD),
    "legacy protocol 4": (lambda: STATE, "x.pth", {**OLD, "pickle_protocol": 4}),
    "zip protocol 5": (lambda: STATE, "x.pth", {"pickle_protocol": 5}),
    "whole module": (network, "model.pth", {}),
    "legacy whole module": (network, "model.pth", OLD),
    "whole DataParallel": (data_parallel, "model.pth", {}),
    "whole module in a checkpoint": (lambda: {"net": network(), **trained()}, "model.pth.tar", {}),
    "training checkpoint": (lambda: {"model": STATE, **trained()}, "checkpoint.pth.tar", {}),
    "legacy training checkpoint": (lambda: {"state_dict": STATE, **trained()}, "checkpoint.pth.tar", OLD),
    "DataParallel": (lambda: {"state_dict": with_prefix("module.")}, "x.bin", {}),
    "Lightning": (lightning, "last.ckpt", {}),
    "compiled": (compiled, "x.pth", {}),
    "backbone": (lambda: {"model": with_prefix("backbone.")}, "x", {}),
    "deep prefix": (lambda: {"a": {"b": [0, with_prefix("module.student.net.")]}}, "x.weights", {}),
    "averaged": (averaged, "swa.pth", {}),
    "half": (lambda: cast(torch.float16), "x.pth", {}),
    "legacy half": (lambda: cast(torch.float16), "x.pth", OLD),
    "bfloat16": (lambda: cast(torch.bfloat16), "x.pth", {}),
    "double": (lambda: cast(torch.float64), "x.pth", {}),
    "whole half module": (lambda: network().half(), "x.pth", {}),
    "views and strides": (strided, "x.pth", {}),
    "legacy views and strides": (strided, "x.pth", OLD),
    "parameters with attributes": (tagged, "x.pth", {}),
    "profiled by thop": (profiled, "x.pth", {}),
    "tuple": (lambda: (3, STATE), "x.pth", {}),
    "NumPy arrays": (lambda: {"model": {name: value.numpy() for name, value in STATE.items()}}, "x.pth", {}),
    "a class of its own": (lambda: {"cfg": Settings(a=1), "weights": Settings(STATE)}, "x.pth", {}),
    "no counters": (lambda: {name: value for name, value in STATE.items() if "num_batches" not in name}, "x.pth", {}),
}


def rounded(dtype):
    """Logits of the state rounded by PyTorch, through a plain file of float32."""
    paddle.seed(0)
    model = AsymmNet("small", 16, 0.35, 1)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(f"{folder}/x.npz", **{name: value.float().numpy() for name, value in cast(dtype).items()})
        load_official(model, f"{folder}/x.npz")
    return logits(model)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_converts(form, tmp_path):
    make, name, options = FORMS[form]
    torch.save(make(), tmp_path / name, **options)
    if form == "bfloat16":  # 8 bits: what the rounding itself costs is no mistake of the reader
        found = logits(convert(tmp_path / name, tmp_path / "x.safetensors"))
        assert np.abs(found - rounded(torch.bfloat16)).max() <= 1e-4
        return
    limit = 1e-2 if "half" in form else 1e-4
    assert difference(tmp_path / name, tmp_path / "ours.safetensors") <= limit


def other_writers():
    yield "TorchScript", lambda path: torch.jit.save(torch.jit.script(network()), path)
    yield "traced", lambda path: torch.jit.save(torch.jit.trace(network(), torch.zeros(1)), path)
    yield "pickle of arrays", lambda path: path.write_bytes(pickle.dumps({n: v.numpy() for n, v in STATE.items()}))
    yield "pickle 5", lambda path: path.write_bytes(pickle.dumps({n: v.numpy() for n, v in STATE.items()}, 5))
    yield "pickle of tensors", lambda path: path.write_bytes(pickle.dumps(STATE))
    yield "pickle of a module", lambda path: path.write_bytes(pickle.dumps(network()))


@pytest.mark.parametrize(("form", "write"), list(other_writers()), ids=[form for form, _ in other_writers()])
def test_what_others_than_torch_save_write(form, write, tmp_path):
    write(tmp_path / "x.bin")
    assert difference(tmp_path / "x.bin", tmp_path / "ours.safetensors") <= 1e-4


@pytest.mark.parametrize("kind", [None, "float16", "bfloat16"])
def test_safetensors_of_others(kind, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state = STATE if kind is None else cast(getattr(torch, kind))
    safetensors.save_file({name: value.contiguous() for name, value in with_prefix("model.", state).items()},
                          tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = logits(convert(tmp_path / "model.safetensors", tmp_path / "ours.safetensors"))
    assert np.abs(found - (RECORDED["logits"] if kind is None else rounded(getattr(torch, kind)))).max() <= 1e-4


# --- several networks in one file ----------------------------------------------------------------------------------

def noisy():
    return {name: value + 0.01 if value.is_floating_point() else value for name, value in STATE.items()}


@pytest.mark.parametrize(("content", "keys"), [
    (lambda: {"model": STATE, "model_ema": {"module." + n: v for n, v in noisy().items()}}, ("model", "model_ema")),
    (lambda: {"state_dict": STATE, "state_dict_ema": noisy(), **trained()}, ("state_dict", "state_dict_ema")),
    (lambda: with_prefix("student.") | with_prefix("teacher.", noisy()), ("student", "teacher")),
    (lambda: STATE | with_prefix("ema.", noisy()), (".", "ema")),
    (lambda: {"model": network(), "ema": Part(noisy())}, ("model", "ema")),
    (lambda: {"model": STATE, "model_ema": noisy() | {"n_averaged": torch.tensor(3)}}, ("model", "model_ema")),
], ids=["torchvision", "timm", "teacher", "one dict", "modules", "counted"])
def test_an_average_beside_the_model_is_asked_about(content, keys, tmp_path, capsys):
    torch.save(content(), tmp_path / "x.pth")
    target = tmp_path / "ours.safetensors"
    assert main(["convert", str(tmp_path / "x.pth"), str(target)]) == 2
    message = capsys.readouterr().err
    assert "2 networks" in message and "--key" in message and not target.exists()
    assert difference(tmp_path / "x.pth", target, key=keys[0]) <= 1e-4
    assert difference(tmp_path / "x.pth", target, key=keys[1]) > 1e-2
    assert main(["convert", str(tmp_path / "x.pth"), str(target), "--key", "nothing"]) == 2
    assert "there is one under" in capsys.readouterr().err


def test_an_average_of_parameters_alone_borrows_the_rest(tmp_path, capsys):
    shadow = {name: value for name, value in noisy().items() if "running" not in name}
    average = {"decay": 0.99, "shadow": shadow}
    torch.save({"model": STATE, "ema": average, "optimizer": {"exp_avg": shadow}}, tmp_path / "x")
    target = tmp_path / "ours.safetensors"
    with pytest.raises(ValueError, match="2 networks, under model, ema.shadow"):
        convert(tmp_path / "x", target)
    assert difference(tmp_path / "x", target, key="model") <= 1e-4
    assert difference(tmp_path / "x", target, key="ema") > 1e-2
    assert "under ema.shadow" in (printed := capsys.readouterr().out) and "batch norm from model" in printed
    expected = noisy() | {name: value for name, value in STATE.items() if "running" in name}
    torch.save(expected, tmp_path / "y")
    whole = convert(tmp_path / "y", tmp_path / "whole.safetensors")
    assert (logits(convert(tmp_path / "x", target, key="ema.shadow")) == logits(whole)).all()


def test_the_same_network_twice_is_no_question(tmp_path, capsys):
    torch.save({"model": network(), "state_dict": copy.deepcopy(STATE), "epoch": 3}, tmp_path / "x.pth")
    assert difference(tmp_path / "x.pth", tmp_path / "ours.safetensors") <= 1e-4
    assert "under model" in capsys.readouterr().out
    torch.save({"model": STATE, "ema": copy.deepcopy(STATE)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="2 networks, under model, ema"):
        convert(tmp_path / "x.pth", tmp_path / "ours.safetensors")


def test_what_was_taken_and_left_out_is_told(tmp_path, capsys):
    torch.save({"state_dict": with_prefix("module."), **trained()}, tmp_path / "x.pth")
    convert(tmp_path / "x.pth", tmp_path / "ours.safetensors")
    printed = capsys.readouterr().out
    assert "under state_dict.module" in printed
    assert all(word in printed for word in ("left out", "optimizer", "args", "rng", "epoch"))


# --- what is refused, with a remedy that works ---------------------------------------------------------------------

def quantised():
    return {name: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8) if value.ndim == 4 else value
            for name, value in STATE.items()}


def pruned():
    model = network()
    prune.l1_unstructured(model.output, "weight", 0.1)
    return model


REFUSED = {
    "parameters alone": (lambda: dict(network().named_parameters()), "Save model.state_dict(), which has both"),
    "optimiser alone": (lambda: trained()["optimizer"], "none of the"),
    "nothing": (lambda: {"epoch": 3}, "holds no arrays, only epoch"),
    "pruned": (lambda: pruned().state_dict(), "torch.nn.utils.prune.remove"),
    "integers": (lambda: {n: (v * 100).to(torch.int8) for n, v in STATE.items()}, "holds int8, not floating-point"),
    "float8": (lambda: cast(torch.float8_e4m3fn), "save it as float32"),
    "quantised": (quantised, "a qtensor: save plain ones"),
    "meta": (lambda: {n: v.to("meta") for n, v in STATE.items()}, "a meta_tensor_no_storage: save plain ones"),
    "another network": (lambda: torch.nn.Linear(3, 4).state_dict(), "none of the 2 names is of an AsymmNet"),
    "surplus": (lambda: STATE | {"attention.weight": torch.ones(3)}, "unexpected attention.weight"),
    "not finite": (lambda: STATE | {"output.bias": torch.full((16,), torch.nan)}, "not finite"),
    "without a head": (lambda: {n: v for n, v in STATE.items() if "output" not in n}, "--classes N --new-head"),
    "an expanded giant": (lambda: STATE | {"output.weight": torch.zeros(1).expand(2**20, 1280)}, "goes beyond"),
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("form", REFUSED)
def test_what_is_refused_says_why(form, old, tmp_path, capsys):
    make, message = REFUSED[form]
    try:
        torch.save(make(), tmp_path / "x.pth", **(OLD if old else {}))
    except (RuntimeError, AttributeError) as error:
        pytest.skip(f"PyTorch does not save it in this form: {error}")
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "ours.safetensors")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "ours.safetensors").exists()


def test_the_remedies_work(tmp_path):
    target = tmp_path / "ours.safetensors"
    model = pruned()
    prune.remove(model.output, "weight")
    torch.save(model.state_dict(), tmp_path / "x.pth")
    assert np.isfinite(difference(tmp_path / "x.pth", target))
    other = {name.replace("output", "fc.1"): value for name, value in STATE.items()}
    torch.save(other, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="--classes N --new-head"):
        convert(tmp_path / "x.pth", target)
    assert convert(tmp_path / "x.pth", target, classes=5, new_head=True).classifier.weight.shape == [1280, 5]
    torch.save(STATE | {"fc.weight": torch.ones(7, 1280), "fc.bias": torch.ones(7)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="add --new-head"):
        convert(tmp_path / "x.pth", target)
    assert convert(tmp_path / "x.pth", target, classes=5, new_head=True).classifier.weight.shape == [1280, 5]
    torch.save(REFUSED["without a head"][0](), tmp_path / "x.pth")
    assert convert(tmp_path / "x.pth", target, classes=5, new_head=True).classifier.weight.shape == [1280, 5]
    program = torch.export.export(network(), (torch.zeros(1),))
    torch.export.save(program, tmp_path / "x.pt2")
    assert main(["convert", str(tmp_path / "x.pt2"), str(target)]) == 2
    torch.save(dict(torch.export.load(tmp_path / "x.pt2").state_dict), tmp_path / "x.pth")
    assert difference(tmp_path / "x.pth", target) <= 1e-4


class Evil:
    def __reduce__(self):
        import os
        return os.mkdir, ("evil",)


@pytest.mark.parametrize("options", [{}, OLD], ids=["zip", "legacy"])
def test_code_in_a_checkpoint_stays_inert(options, tmp_path, monkeypatch):
    """The weights beside it are read all the same."""
    monkeypatch.chdir(tmp_path)
    torch.save({"hook": Evil(), "model": STATE}, "x.pth", **options)
    assert difference("x.pth", tmp_path / "ours.safetensors") <= 1e-4
    assert not (tmp_path / "evil").exists()


# --- other networks, and the way back --------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize(("variant", "width", "rate"), [("large", 0.5, 2), ("large", 1.25, 1), ("small", 0.6, 0)])
def test_width_and_rate_are_solved(variant, width, rate, tmp_path):
    model = AsymmNet(variant, 16, width, rate)
    load_drawn(model, "pytorch", tmp_path / "drawn.npz")
    state = {name: torch.tensor(value) for name, value in np.load(tmp_path / "drawn.npz").items()}
    torch.save({"model": state}, tmp_path / "x.pth")
    network = convert(tmp_path / "x.pth", tmp_path / "ours.safetensors")
    assert (network.variant, network.width, network.asymmrate, network.port) == (variant, width, rate, "pytorch")
    pictures, _ = draw_batch(2)
    network.eval(), model.eval()
    assert (network(paddle.to_tensor(pictures)) == model(paddle.to_tensor(pictures))).all()


def test_what_we_write_loads_strictly(tmp_path):
    convert(REFERENCE / "torch_small_0.35_r1.npz", tmp_path / "ours.safetensors")
    network = convert(tmp_path / "ours.safetensors", tmp_path / "back.npz", to="official")
    export_official(network, tmp_path / "back.safetensors")
    back = {name: torch.tensor(value) for name, value in np.load(tmp_path / "back.npz").items()}
    Part(STATE).load_state_dict(back, strict=True)
    assert all(torch.equal(back[name], value) for name, value in STATE.items() if value.is_floating_point())
    assert set(NAMINGS["pytorch"].translate(list(network.state_dict()), 1).values()) <= back.keys()
