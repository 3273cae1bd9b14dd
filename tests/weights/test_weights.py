"""Weights: every form and naming of the authors' files, the way back, and files that lie about themselves."""
import hashlib
import io
import pickle
import struct
import sys
import tracemalloc
import types
import zipfile
from collections import OrderedDict

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file, save_file

from asymmbook.evidence.reference import CLASSES, REFERENCE, read_table
from asymmlib.__main__ import main
from asymmlib.network import AsymmNet
from asymmlib.weights.convert import convert
from asymmlib.weights.gluon import parse_params, read_params
from asymmlib.weights.names import NAMINGS
from asymmlib.weights.official import export_official, load_official, read_tensors
from asymmlib.weights.own import load_weights, save_weights

PARAMS = REFERENCE / "gluon_small_0.35_r1.params"
TORCH = REFERENCE / "torch_small_0.35_r1.npz"
NAMES = read_table("gluon_to_torch_names")
COLUMNS = {"gluon_save_parameters": "gluon", "gluon_collect_params": "gluon graph", "gluon_export": "gluon export",
           "published_save_parameters": "published", "published_collect_params": "published graph", "torch": "pytorch"}


def small(seed=0, classes=CLASSES, **settings):
    paddle.seed(seed)
    return AsymmNet("small", classes, 0.35, 1, **settings)


def state(network):
    return {name: value.numpy() for name, value in network.state_dict().items()}


def same(first, second):
    assert first.keys() == second.keys()
    return all(first[name].tobytes() == second[name].tobytes() for name in first)


def write_params(path, arrays, magic=0xF993FAC9):
    """A `.params` file of float32 arrays, as MXNet writes it."""
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    for array in arrays.values():
        storage = b"" if magic == 0xF993FAC8 else struct.pack("<i", 0)
        parts += [struct.pack("<I", magic), storage, struct.pack(f"<i{array.ndim}q", array.ndim, *array.shape),
                  struct.pack("<iii", 1, 0, 0), array.astype("<f4").tobytes()]
    parts.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        parts += [struct.pack("<Q", len(name)), name.encode()]
    path.write_bytes(b"".join(parts))


def write_pth(path, tensors, wrapper=None, **members):
    """A `.pth` file as torch.save writes one, by pickling stand-ins that bear PyTorch's names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    exec("def _rebuild_tensor_v2(*arguments): pass", utils.__dict__)  # pickle wants its module to be torch._utils

    class Tensor:
        def __init__(self, key, array):
            self.key, self.array = key, array

        def __reduce__(self):
            strides = tuple(step // 4 for step in self.array.strides)
            return utils._rebuild_tensor_v2, (self, 0, self.array.shape, strides, False, OrderedDict())

    class Pickler(pickle.Pickler):
        inside = 0

        def persistent_id(self, value):
            if isinstance(value, Tensor) and self.inside == value.key:  # its second mention is the storage
                return "storage", torch.FloatStorage, str(value.key), "cpu", value.array.size
            if isinstance(value, Tensor):
                self.inside = value.key
            return None

    stand_ins = OrderedDict((name, Tensor(key, array)) for key, (name, array) in enumerate(tensors.items(), start=1))
    buffer = io.BytesIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torch", torch)
        patch.setitem(sys.modules, "torch._utils", utils)
        Pickler(buffer, protocol=2).dump({wrapper: stand_ins} if wrapper else stand_ins)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", members.get("pickled", buffer.getvalue()))
        for key, array in enumerate(tensors.values(), start=1):
            archive.writestr(f"archive/data/{key}", array.astype("<f4").tobytes())


# --- every form and every naming -----------------------------------------------------------------------------------

SETTINGS = ["variant", "width", "asymmrate"]


@pytest.mark.slow
@pytest.mark.parametrize(("column", "settings"), [
    (column, settings) for column in COLUMNS for settings in NAMES.dropna(subset=[column]).groupby(SETTINGS).groups],
    ids=str)
def test_every_published_name(settings, column):
    rows = NAMES[(NAMES[SETTINGS] == settings).all(axis=1)].dropna(subset=[column])
    variant, width, rate = settings
    names = list(AsymmNet(variant, CLASSES, float(width), int(rate)).state_dict())
    expected = {name.removeprefix("arg:").removeprefix("aux:") for name in rows[column]
                if "num_batches_tracked" not in name}
    found = NAMINGS[COLUMNS[column]].translate(names, int(rate))
    assert {name.removeprefix("arg:").removeprefix("aux:") for name in found.values()} == expected
    if column == "gluon_export":
        assert set(found.values()) == set(rows[column])


V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA


@pytest.mark.slow
@pytest.mark.parametrize(("naming", "magic"), [
    *((name, V2) for name in NAMINGS if name != "pytorch"), ("gluon", V1), ("gluon", V3)])
def test_params_in_every_naming_and_version(naming, magic, tmp_path):
    network, target = small(), small(1, port="gluon")
    load_official(network, PARAMS)
    theirs = NAMINGS[naming].translate(list(network.state_dict()), 1)
    arrays = {theirs[name]: value for name, value in state(network).items()}
    head = theirs["classifier.weight"]
    arrays[head] = arrays[head].T[:, :, None, None]
    write_params(tmp_path / "x.params", arrays, magic)
    load_official(target, tmp_path / "x.params")
    assert same(state(network), state(target))


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_pth_equals_npz(tmp_path, wrapper):
    tensors = read_tensors(TORCH)
    write_pth(tmp_path / "x.pth", {f"module.{name}": value for name, value in tensors.items()}, wrapper)
    first, second = small(), small(1)
    load_official(first, TORCH)
    load_official(second, tmp_path / "x.pth")
    assert same(state(first), state(second))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_round_trip_is_bit_exact(tmp_path, suffix):
    network, back = small(), small(1)
    load_official(network, TORCH)
    before = state(network)
    export_official(network, tmp_path / f"out{suffix}")
    load_official(back, tmp_path / f"out{suffix}")
    assert same(before, state(back))
    official, ours = read_tensors(TORCH), read_tensors(tmp_path / f"out{suffix}")
    assert official.keys() == ours.keys() and all((official[name] == ours[name]).all() for name in official)
    save_weights(back, tmp_path / "ours.safetensors")
    again = small(2)
    load_weights(again, tmp_path / "ours.safetensors")
    assert same(before, state(again))


def test_export_has_all_that_pytorch_asks_for(tmp_path):
    export_official(small(), tmp_path / "out.npz")
    assert set(np.load(tmp_path / "out.npz").files) == {
        name.removeprefix("state/") for name in np.load(TORCH).files if name.startswith("state/")}


# --- what does not fit ---------------------------------------------------------------------------------------------

def test_all_problems_are_named_at_once_and_nothing_is_loaded(tmp_path):
    tensors = dict(read_tensors(TORCH))
    tensors.pop("first_block.0.weight")
    tensors["surplus"] = np.zeros(3, np.float32)
    tensors["output.bias"] = np.zeros(7, np.float32)
    tensors["last_block.1.bias"] = tensors["last_block.1.bias"].astype(np.int32)
    np.savez(tmp_path / "x.npz", **tensors)
    network = small()
    before = state(network)
    with pytest.raises(ValueError) as error:
        load_official(network, tmp_path / "x.npz")
    for part in ("nothing was loaded", "missing first_block.0.weight", "unexpected surplus",
                 "output.bias has shape [7], not [16]", "last_block.1.bias holds int32"):
        assert part in str(error.value)
    assert same(before, state(network))


def test_a_file_of_another_network_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none of the 1 names is of an AsymmNet"):
        np.savez(tmp_path / "x.npz", conv1=np.zeros(3, np.float32))
        load_official(small(), tmp_path / "x.npz")
    with pytest.raises(ValueError, match="does not fit this network"):
        load_official(AsymmNet("large", CLASSES, 0.35), TORCH)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        load_official(small(), tmp_path / "nothing.params")
    (tmp_path / "x.pdparams").write_bytes(bytes(range(200, 250)))
    with pytest.raises(ValueError, match="is of no kind that is read here"):
        load_official(small(), tmp_path / "x.pdparams")


class Evil:
    def __reduce__(self):
        import os
        return os.mkdir, ("evil",)


def test_pickled_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pth(tmp_path / "x.pth", {}, pickled=pickle.dumps({"a": Evil()}, protocol=2))
    np.savez(tmp_path / "x.npz", a=np.array([Evil()], dtype=object))
    for name in ("x.pth", "x.npz"):
        with pytest.raises(ValueError, match="x.pth holds no arrays, only a|x.npz is not a complete .npz"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "evil").exists()


def test_a_checkpoint_of_other_classes_starts_a_network(tmp_path):
    save_weights(small(classes=1000), tmp_path / "thousand.safetensors")
    network = small(1)
    with pytest.raises(ValueError, match="knows 1000 classes, and this network has 16; .* add --new-head"):
        load_weights(network, tmp_path / "thousand.safetensors")
    head = network.classifier.weight.numpy()
    load_weights(network, tmp_path / "thousand.safetensors", new_head=True)
    assert (network.classifier.weight.numpy() == head).all()
    assert (network.stem.conv.weight.numpy() == load_file(tmp_path / "thousand.safetensors")["stem.conv.weight"]).all()


# --- the command ---------------------------------------------------------------------------------------------------

@pytest.mark.slow
@pytest.mark.parametrize("source", [PARAMS, TORCH], ids=["gluon", "pytorch"])
def test_convert_there_and_back(tmp_path, capsys, source):
    ours, official = tmp_path / "ours.safetensors", tmp_path / "official.npz"
    assert main(["convert", str(source), str(ours)]) == 0
    port = ", Gluon's port" if source == PARAMS else ""
    assert f"AsymmNet-Small, width 0.35, asymmrate 1{port}, 16 classes" in capsys.readouterr().out
    assert main(["convert", str(ours), str(official), "--to", "official"]) == 0
    first, second = small(), small(1)
    load_official(first, source)
    load_official(second, official)
    assert same(state(first), state(second))


@pytest.mark.slow
def test_convert_with_a_new_head_and_train_from_it(home, picture_folder, tmp_path, capsys):
    ours = tmp_path / "start.safetensors"
    assert main(["convert", str(TORCH), str(ours), "--new-head", "--classes", "3"]) == 0
    assert "3 classes, the classifier drawn anew" in capsys.readouterr().out
    train = ["train", "--data", str(picture_folder), "--model", "asymmnet_small", "--width", "0.35", "--epochs", "1",
             "--image-size", "32", "--name", "started"]
    assert main([*train, "--start", str(ours)]) == 0
    assert main(train) == 2 and "another start" in capsys.readouterr().err
    from asymmlib.runs import find_run
    assert find_run("started").info["start"] == {
        "sha256": hashlib.sha256(ours.read_bytes()).hexdigest(), "new_head": False}
    assert main([*train[:-1], "whole", "--start", str(TORCH)]) == 2  # the authors' file, of 16 classes
    assert "add --new-head" in capsys.readouterr().err
    assert not (home / "runs" / "whole").exists()
    assert main(["convert", str(TORCH), str(ours)]) == 0
    assert main([*train[:-1], "head", "--start", str(ours), "--new-head"]) == 0
    assert main([*train[:-1], "theirs", "--start", str(TORCH), "--new-head"]) == 0
    assert "in the authors' PyTorch names" in capsys.readouterr().out
    assert main([*train[:-1], "wide", "--width", "0.75", "--start", str(TORCH), "--new-head"]) == 2
    assert "--model asymmnet_small --width 0.35 --asymmrate 1" in capsys.readouterr().err
    assert main([*train[:-1], "none", "--new-head"]) == 2 and "needs start" in capsys.readouterr().err


def test_started_training_begins_with_the_given_weights(home, picture_folder, tmp_path):
    """With a step too small to move anything, the weights of the end are those of the start."""
    from asymmlib.data.sources import prepare
    from asymmlib.recipes import Recipe
    from asymmlib.training import train
    convert(TORCH, tmp_path / "start.safetensors", classes=3, new_head=True)
    recipe = Recipe("still", image_size=32, epochs=1, base_lr=1e-8, weight_decay=0.0)
    run = train("asymmnet_small", recipe, width=0.35, prepared=prepare(picture_folder), start=tmp_path /
                "start.safetensors")
    given, found = load_file(tmp_path / "start.safetensors"), state(run.network())
    assert all(np.allclose(given[name], found[name], atol=1e-6) for name in given
               if not name.endswith(("_mean", "_variance")))


@pytest.mark.parametrize(("arguments", "message"), [
    (["{torch}", "x.bin"], "cannot write x.bin"),
    (["{torch}", "x.npz"], "cannot write x.npz"),
    (["nothing.params", "x.safetensors"], "no weights at nothing.params"),
    (["{torch}", "x.safetensors", "--variant", "large"], "is of AsymmNet-Small, width 0.35, asymmrate 1, by the"),
    (["{torch}", "x.safetensors", "--port", "mxnet"], "unknown port 'mxnet'"),
    (["{torch}", "x.safetensors", "--width", "0.35", "--asymmrate", "2", "--variant", "small"], "cannot be built"),
    (["{torch}", "x.safetensors", "--classes", "3"], "knows 16 classes, and this network has 3; nothing was loaded"),
])
def test_mistakes_in_convert_end_in_one_line(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", *(argument.format(torch=TORCH) for argument in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_convert_finds_the_settings_of_every_network(tmp_path):
    for variant, width, rate in (("large", 0.5, 2), ("small", 1.0, 0), ("large", 1.25, 1)):
        export_official(AsymmNet(variant, 5, width, rate), tmp_path / "x.npz")
        network = convert(tmp_path / "x.npz", tmp_path / "x.safetensors")
        assert (network.variant, network.width, network.asymmrate) == (variant, width, rate)
        assert network.classifier.weight.shape == [1280, 5]


# --- hostile .params -----------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole():
    return PARAMS.read_bytes()


def outcome(data):
    """"values" or the message of a clean error; fails where reading takes memory of the file's size.

    The file's own bytes are read before: they are the other half of "twice the file".
    """
    tracemalloc.start()
    try:
        arrays = parse_params(data, "x.params")
        assert sum(array.nbytes for array in arrays.values()) <= len(data)
        return "values"
    except ValueError as error:
        assert "at byte" in str(error) and len(str(error)) < 2000
        return str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= max(len(data), 2**17), f"{peak} bytes for a file of {len(data)}"


@pytest.mark.slow
def test_cut_files_end_in_an_error_that_says_where(whole):
    places = [*range(1024), *np.random.default_rng(0).integers(1024, len(whole), 100)]
    for place in places:
        message = outcome(whole[:place])
        assert message != "values", f"cut at {place}"
        assert 0 <= int(message.split("at byte ")[1].split(":")[0]) <= place


@pytest.mark.slow
def test_single_byte_corruptions_end_cleanly(whole):
    """500 anywhere, where most hit values, and 500 in headers and names; each byte gets another value."""
    rng = np.random.default_rng(1)
    structure = np.array([*range(24), *_header_bytes(whole), *range(len(whole) - 12_000, len(whole))])
    places = [*rng.integers(0, len(whole), 500), *rng.choice(structure, 500)]
    found = []
    for place in places:
        data = bytearray(whole)
        data[place] ^= int(rng.integers(1, 256))
        found.append(outcome(bytes(data)))
    assert found[:500].count("values") > 400 and sum(text != "values" for text in found[500:]) > 100


def _header_bytes(data):
    """Positions of all bytes in front of the arrays' values."""
    arrays, at = parse_params(data, "whole"), 24
    for array in arrays.values():
        size = 24 + 8 * array.ndim
        yield from range(at, at + size)
        at += size + array.nbytes


def test_corrupt_files_never_reach_a_network(whole, tmp_path):
    network, rng = small(port="gluon"), np.random.default_rng(2)
    places = rng.choice([*range(24), *_header_bytes(whole), *range(len(whole) - 12_000, len(whole))], 40)
    for place in places:
        data = bytearray(whole)
        data[place] ^= int(rng.integers(1, 256))
        (tmp_path / "x.params").write_bytes(data)
        before = state(network)
        try:
            load_official(network, tmp_path / "x.params")
        except ValueError as error:
            assert "x.params" in str(error) and same(before, state(network))


@pytest.mark.parametrize(("at", "form", "value", "message"), [
    (0, "<Q", 7, "it is no list of MXNet arrays"),
    (16, "<Q", 2**63, "arrays are announced"),
    (24, "<I", 5, "no magic number"),
    (28, "<i", 1, "storage type 1"),
    (32, "<i", 2**31 - 1, "dimensions; 1 to 8"),
    (36, "<q", 2**62, "an array of shape"),
    (36, "<q", -1, "is not of positive numbers"),
    (76, "<i", 99, "dtype 99"),
])
def test_hostile_headers(whole, at, form, value, message):
    data = bytearray(whole)
    struct.pack_into(form, data, at, value)
    assert message in outcome(bytes(data))


def test_hostile_names(tmp_path):
    arrays = {"first": np.zeros(300, np.float32), "second": np.zeros(2, np.float32)}
    write_params(tmp_path / "x.params", arrays)
    data = (tmp_path / "x.params").read_bytes()
    for old, new, message in ((b"second", b"\xff" * 6, "not UTF-8"), (b"\x05" + bytes(7), b"\xff" * 8, "a name needs"),
                              (b"\x06" + bytes(7) + b"second", b"\x05" + bytes(7) + b"first", "a second array"),
                              (b"second", b"secondx", "1 bytes follow")):
        assert message in outcome(new.join(data.rsplit(old, 1)))
    assert (read_params(tmp_path / "x.params")["first"] == 0).all()


def test_reading_and_loading_takes_at_most_twice_the_file():
    network = small(port="gluon")
    load_official(network, PARAMS)  # once before, so that lazily made things are made
    tracemalloc.start()
    load_official(network, PARAMS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 2 * PARAMS.stat().st_size


def test_reference_copies_are_small():
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) < 5 * 2**20


def test_damaged_files_of_other_kinds(tmp_path):
    save_file({"a": np.zeros(9, np.float32)}, tmp_path / "x.safetensors")
    write_pth(tmp_path / "x.pth", {"a": np.zeros(9, np.float32)})
    np.savez(tmp_path / "x.npz", a=np.zeros(9, np.float32))
    for path in sorted(tmp_path.iterdir()):
        data = path.read_bytes()
        for place in range(0, len(data), 7):
            path.write_bytes(data[:place])
            with pytest.raises(ValueError, match=path.name):
                read_tensors(path)
