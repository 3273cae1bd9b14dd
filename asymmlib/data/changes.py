"""What became of a run's pictures: how a manifest of now differs from the one that was trained on.

Pictures are known by their SHA-256, so that a folder at another place, or packed as an archive, is the same data.
"""
from typing import TYPE_CHECKING, Any

import pandas as pd

from asymmlib.data.manifest import manifest_hash

if TYPE_CHECKING:
    from asymmlib.data.manifest import Prepared

__all__ = ["changes", "check_evaluation", "trained_on"]

WORDS = ("added", "removed", "changed", "in another split or class")


def changes(old: pd.DataFrame, new: pd.DataFrame) -> str:
    """How two manifests differ, in words such as "1 added, 8 in another split or class"; "" where they do not."""
    before, after = (dict(zip(frame["name"], zip(frame["sha256"], frame["class"], frame["split"], strict=True),
                              strict=True)) for frame in (old, new))
    both = before.keys() & after.keys()
    changed = [name for name in both if before[name][0] != after[name][0]]
    moved = [name for name in both if before[name][0] == after[name][0] and before[name] != after[name]]
    counts = (len(after.keys() - both), len(before.keys() - both), len(changed), len(moved))
    return ", ".join(f"{count} {word}" for count, word in zip(counts, WORDS, strict=True) if count)


def trained_on(old: pd.DataFrame, new: pd.DataFrame, split: str, per_class: int | None = None) -> int:
    """How many pictures of a split of `new` were in the train split of `old`, of which `per_class` were used."""
    train = old[old["split"] == "train"]
    train = train if per_class is None else train.groupby("class").head(per_class)
    return int(new.loc[new["split"] == split, "sha256"].isin(train["sha256"]).sum())


def check_evaluation(name: str, record: dict[str, Any], prepared: "Prepared", split: str) -> None:
    """Say what changed since training, and how many pictures of a split were trained on.

    record: {"manifest": the run's, or None where it did not record it, "sha256": its hash, "recipe": its fields}.
    Raises `ValueError` for a test of a run that kept no test pictures apart: its "test" pictures were trained on.
    """
    known, recipe, now = record["manifest"], record["recipe"], prepared.manifest
    total = int((now["split"] == split).sum())
    if known is None:
        if split == "test" and not recipe.get("test_share"):
            raise ValueError(_no_test(name, "its test pictures may be pictures that it was trained on"))
        if manifest_hash(now) != record["sha256"]:
            print(f"the pictures of {prepared.name} are not those that run {name} was trained on; which ones differ it "
                  "did not record", flush=True)
        return
    trained, difference = trained_on(known, now, split, recipe.get("train_per_class")), changes(known, now)
    if split == "train" or not total:
        trained = 0
    if split == "test" and trained and "test" not in set(known["split"]):
        raise ValueError(_no_test(name, f"{trained} of the {total} test pictures are ones that it was trained on"))
    if difference:
        print(f"the pictures of {prepared.name} have changed since run {name} was trained: {difference}", flush=True)
    if (difference and split != "train") or trained:
        print(f"{trained or 'none'} of the {total} {split} pictures were among those that it was trained on"
              + (": the result is better than on new pictures" if trained else ""), flush=True)


def _no_test(name, fact):
    return (f"run {name} was trained without a test share: {fact}. Evaluate its eval split (--split eval), or train a "
            "run with --test-share (test_share=True)")
