"""None of the sixteen, and heads from five pictures: the rules are the protocol's, the numbers the recorded ones."""
import itertools
import json
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from asymmbook.checkout import project_root, results_dir
from asymmbook.evidence import heads, records, unknown
from asymmbook.evidence.model_card import model_card
from asymmbook.evidence.release import amend
from asymmlib.base.files import checksum
from asymmlib.base.folders import weights_dir
from asymmlib.runs import load_pretrained
from asymmlib.weights.released import RELEASED

COUNTS = Counter(records.read_folds()["class"])


def test_the_ten_classes_are_those_of_the_protocol_and_of_no_training():
    classes = unknown.roles(COUNTS)
    text = (results_dir() / "protocol.md").read_text(encoding="utf-8").replace("\n", " ")
    named = [re.search(rf"\*{word}\* \(([^)]*)\)", text)[1] for word in ("calibrate", "test")]
    assert [", ".join(classes[part]) for part in ("calibrate", "test")] == [
        named[0], re.search(r"others \*test\* \(([^)]*)\)", text)[1]]
    chosen = [*classes["calibrate"], *classes["test"]]
    assert len(set(chosen)) == 10 and all(COUNTS[name] >= heads.LEARN + heads.TEST for name in chosen)
    known = {name for network in RELEASED for name in load_pretrained(network).classes}
    assert not set(chosen) & known and not {name for name in chosen if name.startswith("Faces")}


def test_youden_takes_the_largest_difference_of_shares():
    rng = np.random.default_rng(3)
    known, other = rng.beta(4, 2, 40), rng.beta(2, 3, 30)
    limit = unknown.youden(known, other)

    def gain(value):
        return (known >= value).mean() - (other >= value).mean()
    best = max(gain(value) for value in np.round([*known, *other], unknown.DIGITS))
    assert gain(limit) == pytest.approx(best) and round(limit, unknown.DIGITS) == limit
    assert unknown.youden(np.array([0.8, 0.9]), np.array([0.1, 0.2])) == 0.8, "the lowest of equals that occurs"


def test_area_is_the_share_of_pairs_in_order():
    rng = np.random.default_rng(4)
    known, other = rng.integers(0, 9, 25) / 8, rng.integers(0, 7, 20) / 8
    pairs = [(a > b) + (a == b) / 2 for a, b in itertools.product(known, other)]
    assert unknown.area(known, other) == pytest.approx(np.mean(pairs))
    low, high = unknown.bootstrap(unknown.area, known, other)
    assert 0 < low < np.mean(pairs) < high < 1


def test_cards_have_the_recorded_thresholds_and_whole_digests():
    table = pd.read_csv(results_dir() / "unknown.csv").set_index("network")
    assert list(table.index) == list(RELEASED)
    for name, row in table.iterrows():
        card = json.loads((project_root() / "weights" / f"{name}.json").read_text(encoding="utf-8"))
        assert card["none_below"] == pytest.approx(row["none_below"], abs=1e-9) == load_pretrained(name).none_below
        assert card["sha256"] == checksum(project_root() / "weights" / f"{name}.safetensors")
        assert row["let_through_of"] == sum(COUNTS[label] for label in row["test_classes"].split())
        assert row["calibrate_unknown"] == sum(COUNTS[label] for label in row["calibrate_classes"].split())
        assert row["turned_away_of"] == card["accuracy"]["test"]["pictures"]
        assert row["right_of_kept"] <= card["accuracy"]["test"]["right"]
        assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
    text = (weights_dir() / "README.md").read_text(encoding="utf-8")
    assert text == model_card({name: load_pretrained(name) for name in RELEASED}) and "none of these" in text


def test_a_card_is_amended_and_nothing_else(tmp_path):
    name = "asymmnet_small"
    for end in (".json", ".safetensors"):
        (tmp_path / f"{name}{end}").write_bytes((weights_dir() / f"{name}{end}").read_bytes())
    before = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    amend(name, {"none_below": 0.25}, tmp_path)
    assert json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8")) == {**before, "none_below": 0.25}
    assert load_pretrained(name, tmp_path).none_below == 0.25


def test_a_head_is_at_its_only_minimum():
    rng = np.random.default_rng(6)
    units, labels, decay = rng.normal(size=(12, 7)), np.arange(12) % 3, 1e-2
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    weights = heads.fit(units, labels, decay, 3)

    def loss(values):
        logits = units @ values[:-1] + values[-1]
        logits = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return -logits[np.arange(12), labels].mean() + decay / 2 * (values**2).sum()
    for _ in range(20):
        step = rng.normal(size=weights.shape)
        assert loss(weights + 1e-3 * step) > loss(weights) < loss(weights - 1e-3 * step)
    assert ((units @ weights[:-1] + weights[-1]).argmax(axis=1) == labels).mean() > 0.5


def test_draws_are_seeded_and_learn_from_no_test_picture():
    for draw in range(3):
        first, again = heads.deal_pictures([40, 43], draw), heads.deal_pictures([40, 43], draw)
        for (learn, test), (learn2, test2) in zip(first, again, strict=True):
            assert len(learn) == 5 and len(test) == 20 and not set(learn) & set(test)
            assert (learn == learn2).all() and (test == test2).all()
    assert set(heads.deal_pictures([40], 0)[0][0]) != set(heads.deal_pictures([40], 1)[0][0])


def test_recorded_heads_are_the_draws_of_the_protocol():
    table = pd.read_csv(results_dir() / "heads.csv")
    shown = heads.summary(table).set_index("network")
    assert list(shown.index) == list(RELEASED) and (shown["draws"] == heads.TRIALS["test"]).all()
    assert set(table["decay"]) <= set(heads.DECAYS) and (table.groupby("network")["decay"].nunique() == 1).all()
    assert ((shown["low"] < shown["accuracy"]) & (shown["accuracy"] < shown["high"])).all()
    assert (shown["accuracy"] > 1 / 5).all() and shown.loc[heads.BASE, ["more", "more_low", "more_high"]].eq(0).all()
