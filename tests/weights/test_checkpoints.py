"""Checkpoints without PyTorch: files that it wrote, Paddle's own, hostile pickles, the port, settings in our files."""
import io
import json
import pickle
import struct
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import paddle
import pytest
from paddle import nn
from safetensors.numpy import load_file, save_file

from asymmbook.evidence.reference import REFERENCE, draw_batch, key, load_drawn, read_arrays
from asymmlib.__main__ import main
from asymmlib.checkpoint import load_checkpoint, save_checkpoint
from asymmlib.models import create_model
from asymmlib.network import PORTS, AsymmetricalBottleneck, AsymmNet, plan_blocks
from asymmlib.weights.contents import read_contents
from asymmlib.weights.convert import convert, start_from
from asymmlib.weights.find import find_network
from asymmlib.weights.names import NAMINGS, network_names
from asymmlib.weights.official import export_official, load_official, read_tensors
from asymmlib.weights.own import load_weights, read_safetensors, save_tensors, save_weights
from asymmlib.weights.pickles import Made, Name, run_pickle
from asymmlib.weights.settings import marks
from asymmlib.weights.solve import solve

TORCH = REFERENCE / "torch_small_0.35_r1.npz"


def logits(network, pictures):
    network.eval()
    with paddle.no_grad():
        return network(paddle.to_tensor(pictures)).numpy()


# --- files that PyTorch wrote --------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "which", "place"), [
    ("torch_checkpoint.pth.tar", None, "under state_dict.module"), ("torch_legacy.pth", None, ""),
    ("torch_module.pth", None, ""), ("torch_average.ckpt", "model", "under model")])
def test_files_of_pytorch(name, which, place, tmp_path, capsys):
    network = convert(REFERENCE / name, tmp_path / "ours.safetensors", key=which)
    assert np.abs(logits(network, draw_batch(2)[0]) - read_arrays("torch_files")["logits"]).max() <= 1e-4
    assert place in capsys.readouterr().out
    assert (network.variant, network.width, network.asymmrate, network.port) == ("small", 0.35, 1, "pytorch")


def test_an_average_is_asked_about(tmp_path, capsys):
    source, target = str(REFERENCE / "torch_average.ckpt"), tmp_path / "ours.safetensors"
    assert main(["convert", source, str(target)]) == 2
    assert "2 networks, under model, model_ema: say which with --key" in capsys.readouterr().err
    assert not target.exists()
    assert main(["convert", source, str(target), "--key", "model_ema"]) == 0
    assert "under model_ema" in capsys.readouterr().out
    average, plain = read_tensors(source, "model_ema"), read_tensors(source, "model")
    assert np.allclose(average["output.bias"], plain["output.bias"] + 1, atol=0.01)  # one of them is bfloat16


@pytest.mark.parametrize("name", ["weights.bin", "weights.safetensors", "weights", "weights.pth.tar", "权重.ckpt"])
def test_the_bytes_tell_the_kind(name, tmp_path):
    (tmp_path / name).write_bytes((REFERENCE / "torch_legacy.pth").read_bytes())
    assert find_network(read_contents(tmp_path / name), name).settings["variant"] == "small"


@pytest.mark.parametrize(("content", "message"), [
    (b"", "is an empty file, not a file of weights: fetch it again"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    (b"<!DOCTYPE html><html></html>", "is a web page (HTML)"),
    (b"\x1f\x8b\x08" + bytes(99), "is a gzip archive, not a file of weights: unpack it"),
    (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file, not a file of weights: torch.save(model.state_dict()"),
    (b"PK\x03\x04" + bytes(99), "is cut off or damaged"),
    (b"\x80\x04" + bytes(99), "cannot be read"),
    (pickle.dumps(3), "holds no arrays"),
    (pickle.dumps({"a": 1}) + b"more", "bytes behind its pickle"),
    (b"epochs: 90\n", "is a text, not a file of weights: give the file of weights itself"),
    (b"\x40" + bytes(7) + b'{"a":', "is not a complete safetensors file"),
])
def test_other_files_are_named_with_a_remedy(content, message, tmp_path, capsys):
    (tmp_path / "x.pth").write_bytes(content)
    assert main(["convert", str(tmp_path / "x.pth"), str(tmp_path / "y.safetensors")]) == 2
    error = capsys.readouterr().err
    assert message in error and "x.pth" in error


@pytest.mark.parametrize(("name", "remedy"), [
    ("state.0.momentum_buffer", "give the file of the network"), ("optimizer.state.7.square_avg", "of the network"),
    ("conv2d_0.w_0_velocity_0", ".pdparams"), ("batch_norm2d_3.b_0_beta1_pow_acc_0", ".pdparams"),
])
def test_an_optimiser_alone_is_named(name, remedy, tmp_path):
    np.savez(tmp_path / "x.npz", **{name: np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="an optimiser's state") as caught:
        find_network(read_contents(tmp_path / "x.npz"), "x.npz")
    assert remedy in str(caught.value)


@pytest.mark.parametrize(("start", "message"), [
    ("nothing.safetensors", "no weights at nothing.safetensors: there is no such file"),
    ("", "is a folder, not a file of weights"), ("a-run", "give a-run/last.safetensors"),
    ("broken.safetensors", "its training broke down"),
])
def test_what_no_training_starts_from(start, message, home, picture_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-run").mkdir()
    (tmp_path / "a-run" / "last.safetensors").touch()
    network = AsymmNet("small", 3, 0.35, 1)
    network.stem.conv.weight.set_value(network.stem.conv.weight.numpy() * np.nan)
    save_weights(network, "broken.safetensors")
    assert main(["train", "--model", "asymmnet_small", "--width", "0.35", "--data", str(picture_folder),
                 "--start", start]) == 2
    assert message.lower() in capsys.readouterr().err.lower()
    assert not list(tmp_path.glob("runs/*"))


def test_a_distributed_checkpoint_is_named(tmp_path):
    (tmp_path / "dcp").mkdir()
    (tmp_path / "dcp" / ".metadata").write_bytes(b"x")
    with pytest.raises(ValueError, match="dcp_to_torch"):
        read_contents(tmp_path / "dcp")


# --- Paddle's own files --------------------------------------------------------------------------------------------

def drawn(tmp_path, naming="pytorch", **settings):
    network = AsymmNet("small", 16, 0.35, 1, **settings)
    load_drawn(network, naming, tmp_path / "drawn.npz")
    return network


@pytest.mark.slow
@pytest.mark.parametrize("form", ["state", "checkpoint", "bfloat16", "protocol 2", "authors' names"])
def test_pdparams(form, tmp_path):
    network = drawn(tmp_path)
    state = network.state_dict()
    before = logits(network, draw_batch(2)[0])
    if form == "checkpoint":
        state = {"model": state, "epoch": 3, "opt": {"lr": 0.1}}
    if form == "bfloat16":
        state = {name: value.astype("bfloat16") for name, value in state.items()}
    if form == "authors' names":
        names = NAMINGS["paddle"].translate(list(state), 1)
        state = {names[name]: value for name, value in state.items()}
    paddle.save(state, str(tmp_path / "x.pdparams"), protocol=2 if form == "protocol 2" else 4)
    found = logits(convert(tmp_path / "x.pdparams", tmp_path / "ours.safetensors"), draw_batch(2)[0])
    assert np.abs(found - before).max() <= (0.2 if form == "bfloat16" else 0)


# --- what a pickle may say -----------------------------------------------------------------------------------------

class Evil:
    def __reduce__(self):
        import os
        return os.system, ("touch evil",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_nothing_is_called(protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value = {"evil": Evil(), "set": {1, 2}, "frozen": frozenset("ab"), "bytes": b"x", "long": 2**80,
             "tuple": (1, 2, 3, 4), "text": "é", "float": 1.5, "none": None, "type": dict,
             "nested": [{"a": [True, False]}]}
    found = run_pickle(io.BytesIO(pickle.dumps(value, protocol)))
    assert isinstance(found["evil"], Made) and found["evil"].args == ("touch evil",)
    assert isinstance(found["type"], Name) and not (tmp_path / "evil").exists()
    for name in ("long", "tuple", "text", "float", "none", "nested"):
        assert found[name] == value[name]


def bomb():
    """A tuple of tuples of tuples ... whose hash would take 2**200 steps, as a key."""
    return b"\x80\x02}" + b")" + b"q\x00h\x00\x86" * 200 + b"K\x01s."


HOSTILE = {
    "a key that takes for ever": bomb(),
    "many levels": b"\x80\x02" + b"](" * 100_000 + b"e" * 100_000 + b".",
    "levels": b"\x80\x02" + b"]" * 2000 + b"a" * 1999 + b".",
    "a huge memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a long text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "no end": b"\x80\x02" + b"N" * 1000,
    "an empty stack": b"\x80\x020.",
    "a lone mark": b"\x80\x02t.",
    "a memo that is not there": b"\x80\x02h\x07.",
    "a buffer outside": b"\x80\x05\x97.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02K\x01Q.",
    "an attribute of nothing": b"\x80\x02K\x01}b.",
    "a long name": (b"\x80\x02}X" + struct.pack("<I", 10**6) + b"a" * 10**6 + b"](" * 51 + b"e" * 51 + b"s."),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_end_soon_and_small(case, tmp_path):
    (tmp_path / "x.pth").write_bytes(HOSTILE[case])
    tracemalloc.start()
    begun = time.process_time()
    try:
        assert not read_contents(tmp_path / "x.pth").leaves
    except ValueError as error:
        assert "x.pth" in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert time.process_time() - begun < 60 and peak < 2**28


def test_a_view_beyond_its_storage_is_refused(tmp_path):
    data = (REFERENCE / "torch_legacy.pth").read_bytes()
    (tmp_path / "x.pth").write_bytes(data[:-10])
    with pytest.raises(ValueError, match=r"x\.pth cannot be read: ends within its values"):
        read_contents(tmp_path / "x.pth")


# --- the shapes and the names tell the settings --------------------------------------------------------------------

def shapes(plans, network):
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


@pytest.mark.parametrize(("variant", "width", "rate"), [
    ("large", 0.35, 1), ("small", 0.35, 0), ("small", 0.83, 1), ("small", 1.4, 1), ("large", 0.6, 2)])
def test_settings_are_solved(variant, width, rate):
    network = AsymmNet(variant, 3, width, rate)
    assert network_names(plan_blocks(variant, width, rate)) == list(network.state_dict())
    assert solve(shapes(None, network)) == {"variant": variant, "width": width, "asymmrate": rate, "port": "pytorch"}


@pytest.mark.parametrize(("name", "shape", "message"), [
    ("blocks.3.depthwise.conv.weight", None, "it has 10 blocks"),
    ("head.conv.weight", (960, 40, 1, 1), "of no one width"),
    ("blocks.1.expand.conv.weight", (13, 8, 1, 1), "of no asymmetry rate"),
    ("blocks.4.project.conv.weight", None, "it has no blocks.4.project.conv.weight"),
])
def test_shapes_of_no_network(name, shape, message):
    odd = {**shapes(None, AsymmNet("small", 3, 0.35, 1)), name: shape}
    with pytest.raises(ValueError, match=message):
        solve({key: value for key, value in odd.items() if value is not None})


@pytest.mark.slow
def test_names_of_gluon_make_gluons_network(tmp_path, capsys):
    """Large ×0.5: the two ports have the same shapes and answer otherwise."""
    answers = read_arrays("seeded_gluon")[f"eval/{key('large', 0.5, 1)}"]
    load_drawn(AsymmNet("large", 16, 0.5, 1, port="gluon"), "gluon", tmp_path / "drawn.npz")
    target, pictures = tmp_path / "ours.safetensors", draw_batch(2)[0]
    network = convert(tmp_path / "drawn.npz", target)
    assert network.port == "gluon" and np.abs(logits(network, pictures) - answers).max() <= 1e-4
    with pytest.raises(ValueError, match="convert the file with --port pytorch"):
        load_official(AsymmNet("large", 16, 0.5, 1), tmp_path / "drawn.npz")
    with pytest.raises(ValueError, match="Gluon's port, and this network is"):
        load_weights(AsymmNet("large", 16, 0.5, 1), target)
    with pytest.raises(ValueError, match="the authors' PyTorch code gives its first block a shortcut"):
        convert(target, tmp_path / "official.npz", to="official")
    again = AsymmNet("large", 16, 0.5, 1, port="gluon")
    load_weights(again, target)
    assert np.abs(logits(again, pictures) - answers).max() <= 1e-4
    assert main(["convert", str(target), str(tmp_path / "x.safetensors"), "--port", "pytorch"]) == 0
    forced = AsymmNet("large", 16, 0.5, 1)
    load_weights(forced, tmp_path / "x.safetensors")  # the remedy: on purpose, and said
    assert np.abs(logits(forced, pictures) - answers).max() > 1e-2


# --- settings in what we write -------------------------------------------------------------------------------------

def settings(path):
    return json.loads(read_safetensors(path)[1]["settings"])


def test_settings_stand_in_every_file(tmp_path):
    network, path = AsymmNet("small", 3, 0.5, 2), tmp_path / "x.safetensors"
    known = {"variant": "small", "width": 0.5, "asymmrate": 2, "port": "pytorch"}
    nothing = {"size": None, "mean": None, "std": None}
    save_weights(network, path)
    assert settings(path) == {**known, "classes": 3, **nothing}
    pictures = {"classes": ["a", "b", "c"], "size": 64, "mean": [0.5] * 3, "std": [0.25] * 3}
    save_weights(network, path, {"run": "x", **marks(pictures)})
    assert settings(path) == known | pictures and read_safetensors(path)[1]["run"] == "x"
    export_official(network, tmp_path / "official.safetensors")
    assert settings(tmp_path / "official.safetensors") == {**known, "classes": 3, **nothing}
    converted = convert(path, tmp_path / "again.safetensors")
    assert settings(tmp_path / "again.safetensors") == known | pictures and converted.width == 0.5
    save_weights(create_model("mobilenet_v2", 3), path)
    assert settings(path) == {"network": "MobileNetV2", "epsilon": 1e-5, "classes": 3, **nothing}


class Doubled(AsymmetricalBottleneck):
    """Of the same shapes as the block that it replaces, and of another function."""

    def __init__(self, plan):
        super().__init__(replace(plan, activation="relu"))

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_network_with_other_blocks_is_no_network_of_its_settings(tmp_path):
    def changed():
        network = AsymmNet("small", 3, 0.35, 1)
        network.blocks = nn.LayerList([Doubled(block.plan) for block in network.blocks])
        return network
    path, x = tmp_path / "changed.safetensors", paddle.rand([1, 3, 32, 32])
    network, again, plain = changed(), changed(), AsymmNet("small", 3, 0.35, 1)
    save_weights(network, path, marks({"classes": ["a", "b", "c"]}))
    assert settings(path)["network"] == "AsymmNet with other blocks" and "variant" not in settings(path)
    load_weights(again, path)
    assert (logits(again, x) == logits(network, x)).all()
    with pytest.raises(ValueError, match="is of AsymmNet with other blocks, and this network is AsymmNet$"):
        load_weights(plain, path)
    save_weights(plain, tmp_path / "plain.safetensors")
    with pytest.raises(ValueError, match="is of AsymmNet-Small, width 0.35, .* this network is AsymmNet with other"):
        load_weights(again, tmp_path / "plain.safetensors")


def test_other_settings_are_refused(tmp_path):
    network, path = AsymmNet("small", 3, 0.35, 1), tmp_path / "x.safetensors"
    save_weights(network, path, marks({"classes": ["a", "b", "c"], "size": 64, "mean": [0.5] * 3}))
    for other, message in ((AsymmNet("small", 3, 0.5, 1), "is of AsymmNet-Small, width 0.35"),
                           (create_model("mobilenet_v2", 3), "this network is MobileNetV2")):
        with pytest.raises(ValueError, match=message):
            load_weights(other, path)
    load_weights(network, path, pictures={"classes": ["a", "b", "c"], "size": 64, "mean": [0.5] * 3, "std": [1.0] * 3})
    for said in ({"classes": ["a", "c", "b"]}, {"size": 32}, {"mean": [0.4, 0.5, 0.5]}):
        with pytest.raises(ValueError, match=f"was trained with {next(iter(said))}"):
            load_weights(network, path, pictures=said)
    for odd in ("[", "3", '{"variant": "huge"}', '{"classes": [1]}', '{"classes": 1.5}'):
        save_tensors(load_file(path), tmp_path / "odd.safetensors", {"settings": odd})
        with pytest.raises(ValueError, match=r"odd\.safetensors: its settings are damaged"):
            load_weights(network, tmp_path / "odd.safetensors")
        save_file(load_file(path), tmp_path / "theirs.safetensors", {"settings": odd})  # another program's word
        load_weights(network, tmp_path / "theirs.safetensors")


def test_a_checkpoint_of_another_network_is_refused(tmp_path, capsys):
    def pair(width):
        network = AsymmNet("small", 3, width, 1)
        return network, paddle.optimizer.Momentum(0.1, 0.9, parameters=network.parameters())
    save_checkpoint(tmp_path, *pair(0.35), [{"epoch": 1}])
    assert settings(tmp_path / "epoch-0001.safetensors")["width"] == 0.35
    assert load_checkpoint(tmp_path, *pair(0.35)) == [{"epoch": 1}]
    with pytest.raises(ValueError, match="none of the 1 checkpoints"):
        load_checkpoint(tmp_path, *pair(0.5))
    assert "is of AsymmNet-Small, width 0.35" in capsys.readouterr().out


# --- training from a file ------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_start_takes_files_of_others(tmp_path, capsys):
    network = AsymmNet("small", 16, 0.35, 1)
    start_from(network, TORCH, tell=True)
    assert np.abs(logits(network, read_arrays(TORCH.stem)["input"]) - read_arrays(TORCH.stem)["logits"]).max() <= 1e-4
    assert "in the authors' PyTorch names" in capsys.readouterr().out
    start_from(AsymmNet("small", 3, 0.35, 1), REFERENCE / "torch_module.pth", new_head=True)
    for settings, message in ((("small", 3, 0.35, 1), "add --new-head"),
                              (("large", 16, 1.0, 1), "--model asymmnet_small --width 0.35 --asymmrate 1")):
        with pytest.raises(ValueError, match=message):
            start_from(AsymmNet(*settings), TORCH)
    with pytest.raises(ValueError, match="--key"):
        start_from(network, REFERENCE / "torch_average.ckpt")


def test_start_knows_its_classes(tmp_path):
    network = AsymmNet("small", 2, 0.35, 1)
    save_weights(network, tmp_path / "x.safetensors", marks({"classes": ["cat", "dog"]}))
    start_from(network, tmp_path / "x.safetensors", classes=("cat", "dog"))
    for classes in (("dog", "emu"), ("dog", "cat")):
        with pytest.raises(ValueError, match=r"knows other classes \(cat, dog\).*add --new-head"):
            start_from(network, tmp_path / "x.safetensors", classes=classes)
        start_from(network, tmp_path / "x.safetensors", new_head=True, classes=classes)


@pytest.mark.slow
@pytest.mark.parametrize("port", PORTS)
def test_every_naming_is_found_below_any_prefix(port, tmp_path):
    network = drawn(tmp_path, port=port)
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    for name, naming in NAMINGS.items():
        names = naming.translate(list(state), 1, first=4)
        np.savez(tmp_path / "x.npz", **{f"a.b.{names[ours]}": value for ours, value in state.items()})
        found = find_network(read_contents(tmp_path / "x.npz"), "x.npz")
        assert (found.naming, found.shown, found.whole) == (name, "a.b", True)
        assert found.file_names(state) == {ours: f"a.b.{theirs}" for ours, theirs in names.items()}
