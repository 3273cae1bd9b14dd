"""The explorer's script counts what `asymmlib.complexity` counts, and refuses what it refuses, in the same words."""
import json
import random
import shutil
import subprocess

import pytest
from paddle.vision import models

from asymmbook.checkout import project_root
from asymmbook.pages.explorer import embed, facts
from asymmlib.complexity import costs_by_block, count, formula
from asymmlib.network import ROWS

PADDLES = {"large": models.mobilenet_v3_large, "small": models.mobilenet_v3_small}
COSTS = project_root() / "book" / "static" / "explorer" / "costs.js"
RUN = """
const Costs = require(process.argv[1]);
const {rule, settings, facts} = JSON.parse(require("fs").readFileSync(0, "utf8"));
console.log(JSON.stringify(settings.map((setting) => {
  try { return Costs[rule](setting, facts); } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return {message: error.message};
  }
})));
"""
REFUSED = [("large", 0.0, 1, 224), ("small", -1.0, 1, 224), ("large", float("inf"), 1, 224), ("large", 1.0, -1, 224),
           ("small", 1.0, 0.5, 224), ("large", 1.0, 1, 31), ("large", 1.0, 1, 64.5), ("large", 0.35, 2, 224),
           ("small", 0.2, 3, 224), ("large", 1.0, 5, 224)]


def random_settings(number=50, seed=0):
    """Variant, width, rate and size at random; only such that can be built."""
    rng, settings = random.Random(seed), []
    while len(settings) < number:
        setting = (rng.choice(list(ROWS)), round(rng.uniform(0.2, 2.5), 3), rng.randint(0, 3), rng.randint(32, 512))
        if "message" not in by_python(setting):
            settings.append(setting)
    return settings


def by_python(setting):
    """What `formula` says of one setting, in the shape of the script's answer."""
    variant, width, asymmrate, size = setting
    try:
        cost = formula(variant, width, asymmrate, num_classes=1000, size=size)
    except ValueError as error:
        return {"message": str(error)}
    tables = costs_by_block(cost)
    return {"macs": cost.macs, "params": cost.params,
            "blocks": [{name: [int(value) for value in tables[name].loc[index]] for name in ("macs", "params")}
                       for index in tables["macs"].index]}


def by_script(settings, rule="formula"):
    """What a function of costs.js says of settings, under Node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here: the browser tests still compare the page's totals with Python")
    names = ("variant", "width", "asymmrate", "size")
    # JSON has no infinity; JavaScript reads a number too large for it as one
    text = json.dumps({"settings": [dict(zip(names, setting, strict=True)) for setting in settings], "facts": facts(),
                       "rule": rule})
    done = subprocess.run([node, "-e", RUN, str(COSTS)], input=text.replace("Infinity", "1e999"), text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_fifty_settings_have_the_costs_that_python_counts():
    settings = random_settings()
    assert {(variant, rate) for variant, _, rate, _ in settings} >= {(v, r) for v in ROWS for r in (0, 1, 2)}
    for setting, answer in zip(settings, by_script(settings), strict=True):
        expected = by_python(setting)
        assert (answer["macs"], answer["params"]) == (expected["macs"], expected["params"]), setting
        blocks = [{name: block[name] for name in ("macs", "params")} for block in answer["blocks"]]
        assert blocks == expected["blocks"], setting


@pytest.mark.slow
def test_mobilenet_has_the_costs_of_paddles_own():
    """Widths at which rounding to the nearest and rounding up part ways among them."""
    rng = random.Random(1)
    settings = [(variant, width, 0, rng.randint(32, 256)) for variant in PADDLES
                for width in (1.0, 0.35, round(rng.uniform(0.2, 2), 3), round(rng.uniform(0.2, 2), 3))]
    for (variant, width, _, size), answer in zip(settings, by_script(settings, "mobileNetV3"), strict=True):
        cost = count(PADDLES[variant](pretrained=False, scale=width), (1, 3, size, size))
        assert (answer["macs"], answer["params"]) == (cost.macs, cost.params), (variant, width, size)


def test_refusals_have_the_words_of_python():
    answers = by_script(REFUSED)
    for setting, answer in zip(REFUSED, answers, strict=True):
        assert answer == by_python(setting), setting
    assert len({answer["message"] for answer in answers}) == len(REFUSED)


def test_the_script_has_no_row_of_its_own():
    """A number of the tables in the script would be a second copy of it."""
    text = COSTS.read_text(encoding="utf-8")
    assert not [number for number in ("960", "576", "1280", "672", "112") if number in text]


def test_what_is_embedded_is_what_python_has():
    start, end = embed().index(">") + 1, embed().rindex("<")
    assert json.loads(embed()[start:end]) == json.loads(json.dumps(facts()))
