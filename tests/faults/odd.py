"""Put something that is no regular file where each reader looks: python odd.py FOLDER.

A named pipe, a socket and a link to a device, for every kind of file of fuzzer.py. Prints one line of JSON: refused by
name, without a wait, is what should happen to all.
"""
import json
import os
import signal
import socket
import sys
import warnings
from pathlib import Path

import fuzzer

from asymmlib.base.startup import load_paddle

ABSENT = ("pixel cache", "table")  # one is copied by its reader, the other counts as no table


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(path.parent)  # a socket's path has to be short
        made.bind(path.name)


def make_device(path):
    path.symlink_to("/dev/zero")


def wrong(kind, make, folder):
    """What went wrong with a reader, else None."""
    _, name, read = fuzzer.KINDS[kind]
    (folder / "inside").mkdir(parents=True)
    make(folder / name)
    signal.alarm(fuzzer.LIMIT_S)  # ends the process: an error raised here could be taken for a reader's own
    try:
        read(folder / name)
        said = "it was read"
    except (ValueError, OSError) as error:
        said = "" if str(folder) in str(error) else f"not named: {error!r}"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    signal.alarm(0)
    return f"{kind}, {make.__name__}: {said}" if said else None


if __name__ == "__main__":
    root = Path(sys.argv[1]).absolute()
    warnings.simplefilter("ignore")
    load_paddle()
    kinds = [kind for kind in fuzzer.KINDS if kind not in ABSENT]
    tried = [(kind, make) for kind in kinds for make in (make_pipe, make_socket, make_device)]
    found = [wrong(kind, make, root / str(number)) for number, (kind, make) in enumerate(tried)]
    notes = [note for note in found if note]
    print(json.dumps({"injected": len(tried), "survived": len(tried) - len(notes), "lost": len(notes), "notes": notes}))
