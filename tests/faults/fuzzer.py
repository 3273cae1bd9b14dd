"""Feed damaged files of one kind to their reader: python fuzzer.py KIND FIRST COUNT.

Each input is a good file with seeded damage. Prints a JSON line per counted outcome: right (read), rejected (a
`ValueError` that names the file), crashed (any other exception, more memory than allowed), lost (a file outside the
target), silent (something else was read than was written, where a digest stands).
The process has a limit on memory, each input one on time; a process that dies is counted by who started it.
"""
import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from asymmlib.base.startup import load_paddle

SPARE_BYTES = 2**30  # beyond what the libraries take when loaded
LIMIT_S = 30  # for one input; generous, as other work may hold the processor
INTERESTING = (b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff\xff\xff\xff\xff", b"../", b"/etc/", b"\n",
               b",", b"1e999", b"null", b'"', b"{", b"[[[[[[[[")


def packed(kind):
    target = io.BytesIO()
    names = [f"Images/{label}/{number}.jpg" for label in "ab" for number in range(4)]
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
            for name in names:
                file.writestr(name, name.encode() * 40)
    else:
        with tarfile.open(fileobj=target, mode=kind) as file:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 2000
                file.addfile(info, io.BytesIO(bytes(2000)))
    return target.getvalue()


def picture(kind):
    target = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(target, kind)
    return target.getvalue()


def params():
    values = np.arange(6, dtype="<f4").tobytes()
    array = struct.pack("<Iii2qiii", 0xF993FAC9, 0, 2, 2, 3, 1, 0, 0) + values
    return struct.pack("<QQQ", 0x112, 0, 2) + array * 2 + struct.pack("<QQ", 2, 1) + b"a" + struct.pack("<Q", 1) + b"b"


def safetensors():
    from safetensors.numpy import save
    return save({"a": np.zeros((3, 4), np.float32), "b": np.ones(5, np.float32)}, metadata={"x": "y"})


def npz():
    target = io.BytesIO()
    np.savez(target, a=np.zeros((3, 4), np.float32), b=np.ones(5, np.float32))
    return target.getvalue()


def pth():
    """What torch.save writes: its pickle, put together here opcode by opcode, and the raw values."""
    def tensor(key, count):
        return pickle_string("w" + key) + (
            b"ctorch._utils\n_rebuild_tensor_v2\n((" + pickle_string("storage") + b"ctorch\nFloatStorage\n"
            + pickle_string(key) + pickle_string("cpu") + b"K" + bytes([count]) + b"tQK\x00K" + bytes([count])
            + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR")

    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}(" + tensor("0", 12) + tensor("1", 5) + b"u.")
        for key, count in (("0", 12), ("1", 5)):
            file.writestr(f"archive/data/{key}", np.ones(count, "<f4").tobytes())
    return target.getvalue()


def recorded(name):
    """A file that the real PyTorch wrote."""
    from asymmbook.evidence.reference import reference_file
    return reference_file(name).read_bytes()


def pdparams():
    """What paddle.save writes: a pickle of NumPy arrays."""
    arrays = {"stem.conv.weight": np.ones((8, 3, 3, 3), np.float32), "classifier.bias": np.zeros(3, np.float16)}
    return pickle.dumps({**arrays, "StructuredToParameterName@@": {"stem.conv.weight": "conv2d_0.w_0"}}, 4)


def pickle_string(text):
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def manifest():
    rows = "".join(f"c/{n}.jpg,c,train,{n:064x},c/{n}.jpg\n" for n in range(8))
    return ("path,class,split,sha256,name\n" + rows).encode()


def run_json():
    from asymmlib.recipes import RECIPES
    return json.dumps({"model": "asymmnet_small", "settings": {"width": 0.35}, "recipe": RECIPES["quick"].as_dict(),
                       "classes": ["a", "b"]}).encode()


def small_network():
    import paddle

    from asymmlib.network import asymmnet_small
    network = asymmnet_small(width=0.35, num_classes=2)
    return network, paddle.optimizer.Momentum(0.1, 0.9, parameters=network.parameters())


NETWORK = functools.cache(small_network)


def checkpoint():
    from asymmlib.checkpoint import save_checkpoint
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), *small_network(), [{"epoch": 1}], run="x")
        return (Path(folder) / "epoch-0001.safetensors").read_bytes()


@functools.cache
def prepared_pictures():
    from asymmlib.data.sources import prepare
    root = Path(tempfile.mkdtemp())
    os.environ["ASYMMLIB_HOME"] = str(root / "data")
    for label in "ab":
        (root / "pictures" / label).mkdir(parents=True)
        for number in range(5):
            pixels = np.random.default_rng([ord(label), number]).integers(0, 256, (24, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "pictures" / label / f"{number}.png")
    return prepare(str(root / "pictures"), progress=False)


def cache():
    from asymmlib.data.pictures import cached_pixels
    cached_pixels(prepared_pictures(), 16)
    return next((prepared_pictures().folder / "cache").glob("pixels-16-*.npy")).read_bytes()


def table():
    return b"run,epoch,eval_top1\n" + b"".join(b"first,%d,0.5\n" % epoch for epoch in range(1, 9))


def card():
    from safetensors.numpy import save
    content = save({"a": np.zeros(3, np.float32)})
    about = {"model": "asymmnet_small", "settings": {}, "classes": ["a", "b"], "image_size": 64, "mean": [0.5] * 3,
             "std": [0.2] * 3, "licence": "MIT", "sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps(about, indent=1).encode()


def read_checkpoint(path):
    """Refused as a whole folder is, or taken with its weights as they were written."""
    from asymmlib.checkpoint import load_checkpoint
    with contextlib.redirect_stdout(io.StringIO()):
        rows = load_checkpoint(path.parent, *NETWORK())
    assert rows == [{"epoch": 1}], "a checkpoint that says something else was taken"


def read_cache(path):
    """In the place of a good one: its pixels are right in any case; rejected is what was made anew."""
    from asymmlib.data.pictures import cached_pixels
    place = next((prepared_pictures().folder / "cache").glob("pixels-16-*.npy"))
    good = place.read_bytes()
    place.write_bytes(path.read_bytes())
    with contextlib.redirect_stdout(io.StringIO()) as said:
        pixels = cached_pixels(prepared_pictures(), 16)
    assert pixels.tobytes() in good and place.read_bytes() == good, "pixels of a damaged cache were taken"
    if str(place) in said.getvalue():
        raise ValueError(f"{path}: made anew")


def read_recorded(path):
    from asymmlib.base.tables import read_table
    read_table(path, ("run", "epoch"))  # as asymmbook.evidence reads its tables


def read_card(path):
    from safetensors.numpy import save

    from asymmlib.weights.released import find_released
    path.with_suffix(".safetensors").write_bytes(save({"a": np.zeros(3, np.float32)}))
    try:
        find_released("asymmnet_small", path.parent)
    finally:
        path.with_suffix(".safetensors").unlink()


def read_archive(path):
    from asymmlib.data.archive import unpack
    unpack(path, path.parent / "inside" / "out")


def read_picture(path):
    from asymmlib.data.pictures import load_picture
    assert load_picture(path, 32).shape == (32, 32, 3)


def read_weights(path):
    from asymmlib.weights.official import read_tensors
    read_tensors(path)


def read_table(path):
    from asymmlib.data.manifest import read_manifest
    read_manifest(path)


def read_run(path):
    from asymmlib.recipes import Recipe
    from asymmlib.runs import find_run
    fields = find_run(path.parent).info["recipe"]
    try:
        Recipe(**fields)
    except TypeError as error:
        assert "argument" in str(error), error  # an unknown or missing field, which Python names
        raise ValueError(f"{path}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


# kind: (good file, its name, reader)
KINDS = {
    "zip": (lambda: packed("zip"), "x.zip", read_archive), "tar": (lambda: packed("w"), "x.tar", read_archive),
    "tar.gz": (lambda: packed("w:gz"), "x.tar.gz", read_archive),
    "JPEG": (lambda: picture("JPEG"), "x.jpg", read_picture),
    "PNG": (lambda: picture("PNG"), "x.png", read_picture), "params": (params, "x.params", read_weights),
    "npz": (npz, "x.npz", read_weights), "pth": (pth, "x.pth", read_weights),
    "pth from before 1.6": (lambda: recorded("torch_legacy.pth"), "x.pth", read_weights),
    "pth of a module": (lambda: recorded("torch_module.pth"), "x.pth", read_weights),
    "pth of a checkpoint": (lambda: recorded("torch_checkpoint.pth.tar"), "x.pth.tar", read_weights),
    "pdparams": (pdparams, "x.pdparams", read_weights),
    "safetensors": (safetensors, "x.safetensors", read_weights), "manifest": (manifest, "x.csv", read_table),
    "run.json": (run_json, "run.json", read_run),
    "pixel cache": (cache, "x.npy", read_cache),
    "checkpoint": (checkpoint, "epoch-0001.safetensors", read_checkpoint),
    "table": (table, "curves.csv", read_recorded), "card": (card, "asymmnet_small.json", read_card)}


def damage(data, rng):
    """One to four of: flipped bits, bytes put in, a part cut out, doubled or overwritten, the end cut off."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        how = rng.randrange(6)
        if how == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at:at] = rng.choice(INTERESTING)
        elif how == 2:
            value = rng.choice(INTERESTING)
            data[at:at + len(value)] = value
        elif how == 3:
            del data[at:min(end, at + 64)]
        elif how == 4:
            data[end:end] = data[at:min(end, at + 512)]
        elif rng.random() < 0.3:
            del data[max(1, at):]
        data = data or bytearray(b"x")
    return bytes(data)


def outcome(kind, index, good, folder):
    """What becomes of input number `index`: "right", "rejected", or why it counts as crashed."""
    _, name, read = KINDS[kind]
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "inside").mkdir(parents=True)
    (folder / name).write_bytes(damage(good, random.Random(f"{kind} {index}")))
    signal.alarm(LIMIT_S)  # ends the process, also within a library
    try:
        read(folder / name)
        result = "right"
    except ValueError as error:
        result = "rejected" if str(folder) in str(error) else f"crashed: the file is not named: {error!r}"
    except AssertionError as error:
        result = f"silent: {error}"
    except Exception as error:  # this is what is looked for
        result = f"crashed: {type(error).__name__}: {error}"
    signal.alarm(0)
    strays = {path.name for path in folder.iterdir()} - {name, "inside"}
    strays |= {path.name for path in (folder / "inside").iterdir()} - {"out"}
    return f"lost: written outside: {strays}" if strays else result


if __name__ == "__main__":
    kind, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    warnings.simplefilter("ignore")
    load_paddle()
    __import__("asymmlib.dataset"), __import__("asymmlib.weights.official"), __import__("asymmlib.runs")
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (taken + SPARE_BYTES, taken + SPARE_BYTES))
    good = KINDS[kind][0]()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(first, first + count):
            print(json.dumps([index, outcome(kind, index, good, Path(folder) / "x")]), flush=True)
