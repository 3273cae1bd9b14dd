"""Put something that is no regular file where each reader looks: python odd.py FOLDER.

A named pipe, a socket and a link to a device, for every kind of file of fuzzer.py, and for each that is written:
refused by name, without a wait, is what should happen to all. Prints the line of `outcomes.Counts`.
"""
import os
import shutil
import signal
import socket
import sys
import warnings
from pathlib import Path

import fuzzer
from outcomes import Counts, expect

from asymmlib.base.startup import load_paddle


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)  # a socket's path has to be short
        made.bind(path.name)


def make_device(path):
    path.symlink_to("/dev/zero")


def place_and_reader(kind, folder):
    """Where a file of this kind is looked for, with nothing there, and what reads it."""
    _, name, read = fuzzer.KINDS[kind]
    if kind != "pixel cache":
        (folder / "inside").mkdir(parents=True)
        return folder / name, read
    from asymmlib.data.pictures import cached_pixels  # its place follows from the pictures
    prepared = fuzzer.prepared_pictures()
    cache = prepared.folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    cached_pixels(prepared, 16)
    place = next(cache.glob("pixels-16-*.npy"))
    place.unlink()
    return place, lambda path: cached_pixels(prepared, 16)


def refuse(place, use):
    """What uses the file at a place refuses it by its name."""
    signal.alarm(fuzzer.LIMIT_S)  # ends the process: an error raised here could be taken for a reader's own
    try:
        use(place)
    except (ValueError, OSError) as error:
        expect(str(place.parent) in str(error), "crashed", f"not named: {error!r}")
    else:
        expect(False, "silent", "it was used")
    finally:
        signal.alarm(0)


def write(place):
    """Every file of this library is written so."""
    from asymmlib.base.files import atomic_write
    with atomic_write(place) as file:
        file.write(b"x")


if __name__ == "__main__":
    root = Path(sys.argv[1]).absolute()
    warnings.simplefilter("ignore")
    load_paddle()
    counts = Counts()
    for number, kind in enumerate((*fuzzer.KINDS, "written")):
        for make in (make_pipe, make_socket, make_device):
            with counts.trial(f"{kind}, {make.__name__}"):
                folder = root / f"{number}-{make.__name__}"
                place, use = (folder / "x", write) if kind == "written" else place_and_reader(kind, folder)
                folder.mkdir(exist_ok=True)
                make(place)
                refuse(place, use)
    counts.report()
