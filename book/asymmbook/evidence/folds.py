"""The pictures of the trial: which classes each set has, and which fold of which repeat holds a picture out.

Folds are a function of the pictures' SHA-256, their classes, the table of near-copies and the number of the repeat
alone: the same on every machine, whatever the order of the files. They are dealt once, over all of Caltech-101, so a
picture is in the same fold in every set. Near-copies (`results/near-copies.csv`) are always on the same side.
"""
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from asymmbook.checkout import results_dir
from asymmlib.base.extras import load_package
from asymmlib.base.files import atomic_write
from asymmlib.base.folders import home
from asymmlib.data.manifest import read_manifest
from asymmlib.data.sources import CALTECH16, MANIFESTS, Prepared, find_images, keep_classes, largest_classes, prepare

__all__ = ["FOLDS", "NEAR_COPIES", "PRETRAIN", "REPEATS", "class_sets", "copies_of_others", "deal", "fold_table",
           "held_out", "open_pictures", "read_near_copies", "unknown_classes", "write_near_copies"]

FOLDS, REPEATS = 5, 2
NEAR_COPIES = "near-copies.csv"  # in results/: pairs of pictures that show the same
HASH_SIZE, DISTANCE = 16, 44  # side of the perceptual hash; bits of its 256 by which near-copies may differ
SOURCE = "caltech101"
PRETRAIN = "pretrain"  # how the names of sets begin that only other networks start from
CROPS, FULL = "Faces_easy", "Faces"  # a class whose pictures are crops, and the one that they are cut from
UNKNOWN, LEAST = 10, 40  # classes that stay out of all training; pictures that each of them has at least


def class_sets(counts: Mapping[str, int]) -> dict[str, tuple[str, ...]]:
    """{set: classes} out of `{class: pictures}` of Caltech-101's object categories.

    caltech16 is compared on; next16 chooses settings; hundred is every class but Faces_easy; pretrain85 and pretrain69
    are what is left when caltech16, or caltech16 and next16, are taken away; pretrain74 and pretrain58 the same without
    Faces_easy and `unknown_classes`.
    """
    following = largest_classes(counts, skip=len(CALTECH16))
    kept = set(counts) - {CROPS} - set(unknown_classes(counts))
    return {"caltech16": CALTECH16, "next16": following,
            "hundred": tuple(sorted(set(counts) - {CROPS})),
            "pretrain85": tuple(sorted(set(counts) - set(CALTECH16))),
            "pretrain69": tuple(sorted(set(counts) - set(CALTECH16) - set(following))),
            "pretrain74": tuple(sorted(kept - set(CALTECH16))),
            "pretrain58": tuple(sorted(kept - set(CALTECH16) - set(following)))}


def unknown_classes(counts: Mapping[str, int]) -> tuple[str, ...]:
    """Ten classes that no network which is released or shown was trained on, by name; counts: {class: pictures}.

    Of those outside caltech16 and next16, without both classes of faces, the smallest of at least 40 pictures, ties by
    name.
    """
    taken = {*CALTECH16, *largest_classes(counts, skip=len(CALTECH16)), CROPS, FULL}
    left = [name for name in counts if name not in taken and counts[name] >= LEAST]
    return tuple(sorted(sorted(left, key=lambda name: (counts[name], name))[:UNKNOWN]))


def deal(manifest: pd.DataFrame, pairs: Iterable[tuple[str, str]], repeat: int) -> np.ndarray:
    """The fold, int `[N]`, in which each picture of a manifest is held out, stratified by class.

    pairs: (SHA-256, SHA-256) of near-copies; linked pictures form a group and share a fold. Groups of a class go, the
    larger ones first and then by a hash of repeat and group, to the fold with the fewest pictures of the class so far.
    """
    groups = _groups(manifest["sha256"], pairs)
    members: dict[str, list[str]] = defaultdict(list)  # of each group, the classes of its pictures
    have: Counter[tuple[str, int]] = Counter()  # pictures of a class in a fold so far
    for digest, label in zip(manifest["sha256"], manifest["class"], strict=True):
        members[groups[digest]].append(label)
    fold = {}
    for group in sorted(members, key=lambda group: (-len(members[group]), _hash(repeat, group))):
        labels = members[group]
        fold[group] = min(range(FOLDS), key=lambda number: (sum(have[label, number] for label in labels),
                                                            _hash(repeat, min(labels), number)))
        have.update((label, fold[group]) for label in labels)
    return np.array([fold[groups[digest]] for digest in manifest["sha256"]])


def _hash(*parts):
    return hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()


def _groups(digests, pairs):
    """{SHA-256: smallest SHA-256 among the pictures that are linked to it}."""
    group = {digest: digest for digest in digests}

    def root(digest):
        while group[digest] != digest:
            digest = group[digest]
        return digest
    for first, second in pairs:
        if first in group and second in group:
            low, high = sorted((root(first), root(second)))
            group[high] = low
    return {digest: root(digest) for digest in group}


def read_near_copies(folder: Path | None = None) -> pd.DataFrame:
    """The recorded pairs: first, second (names), first_sha256, second_sha256, distance (bits of the hash)."""
    return pd.read_csv((folder or results_dir()) / NEAR_COPIES)


def copies_of_others(names: Iterable[str], folder: Path | None = None) -> set[str]:
    """Those of these pictures that are near-copies of one that is not among them."""
    names, pairs = set(names), read_near_copies(folder)[["first", "second"]].itertuples(index=False, name=None)
    return {inside for pair in pairs if len(names & set(pair)) == 1 for inside in names & set(pair)}


def _pairs(folder=None):
    return list(read_near_copies(folder)[["first_sha256", "second_sha256"]].itertuples(index=False, name=None))


def fold_table(manifest: pd.DataFrame, folder: Path | None = None) -> pd.DataFrame:
    """What the pages need of the pictures, without the pictures: name, class, repeat0, repeat1 (folds)."""
    columns = {f"repeat{repeat}": deal(manifest, _pairs(folder), repeat) for repeat in range(REPEATS)}
    return manifest[["name", "class"]].assign(**columns).reset_index(drop=True)


def open_pictures() -> Prepared:
    """Caltech-101 as its manifest says, without checking 8,677 files again: `Prepared`.

    What is trained on are the cached pixels, whose key is made of the manifest's checksums. Raises `FileNotFoundError`
    where nobody has called `prepare("caltech101")` yet.
    """
    folder = home() / SOURCE
    return Prepared(SOURCE, find_images(folder / "Images"), folder, read_manifest(folder / MANIFESTS[False]))


def held_out(name: str, repeat: int | None = None, fold: int | None = None, prepared: Prepared | None = None,
             folder: Path | None = None) -> Prepared:
    """A set of `class_sets` as `Prepared` data whose eval split is one fold and whose train split is the rest.

    Without a fold it keeps the article's rule, every fifth picture. From the sets to pre-train on, near-copies of
    pictures of other sets are left out. Raises `ValueError` for an unknown set.
    """
    everything = prepared or open_pictures()
    sets = class_sets(Counter(everything.manifest["class"]))
    if name not in sets:
        raise ValueError(f"unknown set {name!r}; known: {', '.join(sets)}")
    chosen = keep_classes(everything, sets[name], name)
    if name.startswith(PRETRAIN):
        kept = ~chosen.manifest["name"].isin(copies_of_others(chosen.manifest["name"], folder))
        chosen = replace(chosen, manifest=chosen.manifest[kept].reset_index(drop=True))
    if fold is None:
        return chosen
    table = fold_table(everything.manifest, folder).set_index("name")
    folds = table[f"repeat{repeat}"].reindex(chosen.manifest["name"]).to_numpy()
    manifest = chosen.manifest.assign(split=np.where(folds == fold, "eval", "train"))
    return replace(chosen, name=f"{name}-r{repeat}f{fold}", manifest=manifest)


def write_near_copies(folder: Path | None = None) -> pd.DataFrame:
    """Find the near-copies in Caltech-101 by a perceptual hash and record them. Needs imagehash (extra `copies`)."""
    from asymmlib.data.pictures import decode
    imagehash = load_package("imagehash")
    prepared = prepare(SOURCE)
    hashes = np.stack([imagehash.phash(decode(prepared.images / path), HASH_SIZE).hash.ravel()
                       for path in prepared.manifest["path"]])
    rows = []
    for index in range(len(hashes) - 1):
        distances = (hashes[index + 1:] != hashes[index]).sum(axis=1)
        for other in np.flatnonzero(distances <= DISTANCE):
            pair = prepared.manifest.iloc[[index, index + 1 + other]]
            rows.append([*pair["name"], *pair["sha256"], distances[other]])
    table = pd.DataFrame(rows, columns=["first", "second", "first_sha256", "second_sha256", "distance"])
    with atomic_write((folder or results_dir()) / NEAR_COPIES, "w") as file:
        table.to_csv(file, index=False, lineterminator="\n")
    return table
