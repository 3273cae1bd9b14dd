"""The same picture twice: in training and in evaluation it makes results look better than they are, in two classes one
label is wrong. Equal bytes are found by the manifest's checksums, nearly equal pictures by a perceptual hash.
"""
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from asymmlib.base.extras import missing_package

if TYPE_CHECKING:
    from asymmlib.data.manifest import Prepared

__all__ = ["NearCopies", "report_copies"]

NAMED = 5  # groups that a message names
NEAR_BITS = 6  # of 64 in which nearly equal pictures may differ: JPEG again, another size, a little lighter
NEIGHBOURS = 64  # compared with each one that agrees in a band: pictures without any pattern agree by thousands


def report_copies(manifest: pd.DataFrame) -> int:
    """Print how many pictures of a manifest have equal bytes in different splits or classes, and which; returns their
    number. Copies within one split of one class are no harm and not told."""
    groups = [group for _, group in manifest[manifest.duplicated("sha256", keep=False)].groupby("sha256", sort=False)
              if _matters(group)]
    count = sum(map(len, groups))
    if count:
        print(f"warning: {count} pictures are copies (the same bytes) of one in another split or class: "
              f"{_named(groups)}. Copies in train make evaluation look better than it is, in two classes one is wrong: "
              "remove them")
    for split in ("eval", "test"):
        held = manifest.loc[manifest["split"] == split, "sha256"]
        if len(held) and held.isin(set(manifest.loc[manifest["split"] == "train", "sha256"])).all():
            print(f"warning: every picture of {split} is in train too: {split} is a copy of it, or of a part of it")
    return count


class NearCopies:
    """Collects a perceptual hash of each picture of a manifest, in its order, and reports those that nearly agree."""

    def __init__(self) -> None:
        self.phash: Callable[[Image.Image], Any] | None = None
        self.hashes: list[np.ndarray] = []
        try:
            self.phash = import_module("imagehash").phash
        except ImportError as error:
            self.reason = missing_package("imagehash") or str(error)

    def add(self, picture: np.ndarray) -> None:
        """Take the hash of the next picture, uint8 `[H, W, 3]`."""
        if self.phash:
            self.hashes.append(np.packbits(self.phash(Image.fromarray(picture)).hash))

    def report(self, prepared: "Prepared") -> int:
        """Print how many pictures look nearly like one in another split or class, and which; returns their number."""
        if not self.phash:
            print(f"nearly equal pictures are not looked for: {self.reason}")
            return 0
        manifest = prepared.manifest
        first, second = _near_pairs(np.array(self.hashes))
        differ = {column: (values := manifest[column].to_numpy())[first] != values[second]
                  for column in ("split", "class", "sha256")}
        told = (differ["split"] | differ["class"]) & differ["sha256"]
        count = len(np.unique([first[told], second[told]]))
        if count:
            pairs = [manifest.iloc[list(pair)] for pair in zip(first[told][:NAMED + 1], second[told], strict=False)]
            print(f"{prepared.name}: {count} pictures look nearly like one in another split or class: {_named(pairs)}. "
                  "If they show the same thing, evaluation looks better than it is")
        return count


def _matters(group):
    return group["split"].nunique() > 1 or group["class"].nunique() > 1


def _named(groups):
    shown = (" = ".join(f"{row.path!r} ({row.split})" for row in group.head(NAMED).itertuples())
             for group in groups[:NAMED])
    return "; ".join(shown) + ("; ..." if len(groups) > NAMED else "")


def _near_pairs(hashes):
    """Two arrays, of the first and the second rows of all pairs of uint8 `[N, 8]` that differ in fewer than
    `NEAR_BITS` of their 64 bits, sorted.

    Compared are rows that agree in one of four bands of 16 bits: all that differ in three bits or fewer, most others.
    """
    found = [np.empty((0, 2), np.int64)]
    for band in hashes.view(">u2").T if len(hashes) else ():
        order = np.argsort(band, kind="stable")
        for step in range(1, min(NEIGHBOURS, len(order))):
            first, second = order[:-step], order[step:]
            agree = band[first] == band[second]
            if not agree.any():
                break
            first, second = first[agree], second[agree]
            near = np.unpackbits(hashes[first] ^ hashes[second], axis=1).sum(axis=1) < NEAR_BITS
            found.append(np.sort(np.stack([first[near], second[near]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0).T
