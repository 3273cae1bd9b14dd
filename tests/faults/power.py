"""Cut the power of a disk at the moment work is reported as done: python power.py WORK TRIALS FOLDER.

The disk is an ext4 file system in a file. A copy of that file shows what had reached the disk, without what was still
in memory. Prints the line of `outcomes.Counts`; ends with 77 where such a disk cannot be had.
"""
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import scenarios
from outcomes import Counts, expect

from asymmlib.base.startup import load_paddle

SIZE = 96 * 2**20


@contextmanager
def mounted(image, place):
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-o", "loop", image, place], capture_output=True).returncode:
        sys.exit(77)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def cut(work, image, place):
    """Do the work on the disk in `image`; copies of it, taken as each piece was reported, and what each should show."""
    copies = []

    def report():
        copies.append((image.with_name(f"cut{len(copies)}"), work.pieces()))
        shutil.copyfile(image, copies[-1][0])

    with mounted(image, place):
        shutil.copytree(work.template, work.out, dirs_exist_ok=True)
        subprocess.run(["sync", "-f", work.out], check=True)
        work.do(report)
    return copies


def trial(work, root):
    """Raise `outcomes.Ended` where something is missing after a cut, or torn."""
    image = root / "disk"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", image], check=True)
    for copy, pieces in cut(work, image, work.out):
        with mounted(copy, work.out):
            scenarios.visible(work)
            expect(work.pieces() >= pieces, "lost", f"{pieces} pieces were done, {work.pieces()} are there")
        copy.unlink()


if __name__ == "__main__":
    name, trials, root = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    load_paddle()
    work = scenarios.WORKS[name](root)
    work.template.mkdir()
    work.make()
    counts = Counts()
    for number in range(trials):
        with counts.trial(number):
            trial(work, root)
    counts.report()
