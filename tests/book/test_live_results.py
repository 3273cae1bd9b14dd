"""What the live page says of recorded numbers, in both languages, and the mathematics of its heads beside SciPy's."""
import json
import shutil
import subprocess
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from asymmbook.checkout import project_root, results_dir
from asymmbook.editions.catalogue import catalogue, foreign
from asymmbook.editions.outputs import texts
from asymmbook.evidence import heads, records, unknown
from asymmbook.evidence.drawn import open_drawn
from asymmbook.pages import live, live_results, wasm, webgpu
from asymmbook.pages.browser import find_chromium
from asymmbook.pages.live import SHOWN
from asymmlib.data.archive import unpack
from asymmlib.data.pictures import load_picture
from asymmlib.data.sources import CALTECH_INNER
from asymmlib.runs import load_pretrained

HEAD = project_root() / "book" / "static" / "live" / "head.js"
# reads {units, labels, count, decay, test} and answers with what head.js makes of it
NODE = """
require(process.argv[1]);
const { units, labels, count, decay, test } = JSON.parse(require("fs").readFileSync(0));
const rows = units.map((row) => liveHead.unit(row)), head = liveHead.fit(rows, labels, count, decay);
console.log(JSON.stringify({ weights: head.weights.map((row) => Array.from(row)), bias: head.bias,
  left: liveHead.leaveOneOut(rows, labels, count, decay),
  answers: test.map((row) => liveHead.probabilities(head, row)) }));
"""


def in_node(units, labels, count, decay, test):
    if shutil.which("node") is None:
        pytest.skip("no node here")
    given = {"units": units.tolist(), "labels": labels.tolist(), "count": count, "decay": decay, "test": test.tolist()}
    done = subprocess.run(["node", "-e", NODE, HEAD], input=json.dumps(given), capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_head(units, labels, count, decay, test):
    """What node answers is SciPy's minimum; its answers are returned."""
    found = in_node(units, labels, count, decay, test)
    expected = heads.fit(units / np.linalg.norm(units, axis=1, keepdims=True), labels, decay, count)
    np.testing.assert_allclose(np.array(found["weights"]).T, expected[:-1], atol=1e-5)
    np.testing.assert_allclose(found["bias"], expected[-1], atol=1e-5)
    logits = test / np.linalg.norm(test, axis=1, keepdims=True) @ expected[:-1] + expected[-1]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found["answers"], shares, atol=1e-5)
    return found, shares


@pytest.mark.parametrize("decay", [1e-1, 1e-2, 1e-3])
def test_the_pages_head_is_scipys(decay):
    rng = np.random.default_rng(8)
    labels = np.repeat(np.arange(3), 5)
    units = rng.random((15, 40)) + np.eye(3)[labels] @ rng.random((3, 40))
    found, _ = check_head(units, labels, 3, decay, rng.random((6, 40)))
    rows, left = units / np.linalg.norm(units, axis=1, keepdims=True), 0
    for out in range(15):
        keep = np.arange(15) != out
        weights = heads.fit(rows[keep], labels[keep], decay, 3)
        left += (rows[out] @ weights[:-1] + weights[-1]).argmax() == labels[out]
    assert found["left"] == left


@pytest.mark.slow
def test_the_pages_head_on_classes_that_no_training_saw(shared, tmp_path):
    """The protocol's first draw of the five test classes: node and Python answer alike, and as recorded."""
    archive = shared / "data" / "caltech-101.zip"
    if not archive.is_file():
        pytest.skip("no shared/data/caltech-101.zip: the pictures of Caltech-101 are not here")
    names = unknown.roles(Counter(records.read_folds()["class"]))["test"]
    inner = next(unpack(archive, tmp_path / "outer", keep=lambda paths: [
        path for path in paths if path.name == CALTECH_INNER]).rglob(CALTECH_INNER))
    images = unpack(inner, tmp_path / "inner", keep=lambda paths: [path for path in paths if path.parent.name in names])
    recorded = pd.read_csv(results_dir() / "heads.csv")
    row = recorded[(recorded["network"] == "asymmnet_large") & (recorded["draw"] == 0)].iloc[0]
    classifier, learn, test = load_pretrained("asymmnet_large"), [], []
    files = [sorted(images.rglob(f"{name}/*.jpg")) for name in names]
    for paths, (first, second) in zip(files, heads.deal_pictures([len(paths) for paths in files], 0), strict=True):
        pixels = np.stack([load_picture(path, classifier.image_size) for path in paths])
        units = heads.class_features(classifier, pixels)
        learn.append(units[first])
        test.append(units[second])
    labels = np.repeat(np.arange(5), heads.LEARN)
    found, shares = check_head(np.vstack(learn), labels, 5, row["decay"], np.vstack(test))
    answers = np.array(found["answers"]).argmax(axis=1)
    assert (answers == shares.argmax(axis=1)).all()
    right = (answers == np.repeat(np.arange(5), heads.TEST)).mean()
    assert right == pytest.approx(row["accuracy"], abs=0.021), "two pictures may fall otherwise on another processor"


def test_the_profile_is_read_by_operator():
    """Means of the fastest quarter of the runs; convolutions by their filters, whatever is fused into them."""
    def node(kind, duration, *filters, side=4):
        shapes = [{"float": [1, 8, side, side]}, {"float": [8, *filters]}]
        return {"cat": "Node", "name": f"{kind}_kernel_time", "dur": duration,
                "args": {"op_name": kind, "input_type_shape": shapes}}

    def run(scale):
        return [node("Conv", 3000 * scale, 1, 5, 5), node("FusedConv", 500 * scale, 8, 1, 1), node("Mul", 100 * scale),
                node("Conv", 700 * scale, 8, 1, 1), node("Conv", 60 * scale, 8, 1, 1, side=1),
                {"cat": "Session", "name": "model_run", "dur": 5000 * scale}]
    events = [event for scale in (9, 1, 9, 9, 9, 2, 9, 9) for event in run(scale)]
    found = wasm.operators(["[", *(json.dumps(event) + "," for event in events), "]"])
    assert list(found["operator"]) == ["depthwise convolution 5 × 5", "convolution 1 × 1", "Mul",
                                      "convolution 1 × 1 on one pixel"]
    np.testing.assert_allclose(found[["calls", "ms"]], [[1, 4.5], [2, 1.8], [1, 0.15], [1, 0.09]])
    with pytest.raises(ValueError, match="no runs"):
        wasm.operators(["["])


def test_both_networks_are_profiled():
    table = pd.read_csv(results_dir() / "live-operators.csv")
    assert list(dict.fromkeys(table["network"])) == list(SHOWN) and (table["ms"] > 0).all()
    calls = table.pivot(index="operator", columns="network", values="calls").fillna(0)
    assert calls.loc["Concat", "asymmnet_large"] > 5 and calls["mobilenet_v2"].get("Concat", 0) == 0


@pytest.mark.slow
@pytest.mark.skipif(bool(live.obstacle()), reason=live.obstacle())
def test_webgpu_gives_the_answers_of_webassembly_and_python():
    """Really computed by WebGPU, with shaders: on the processor, by Chromium's SwiftShader."""
    pytest.importorskip("playwright.sync_api")
    if find_chromium() is None:
        pytest.skip("no Chromium here: WebGPU is not tried")
    picture = live.samples()[0]["png"]
    try:
        table, where = webgpu.measure([open_drawn()], [picture], webgpu.SIMULATED, browsers=1, turns=1, repeats=1)
    except RuntimeError as error:
        pytest.skip(str(error))
    found = table.iloc[0]
    assert found["on_chip"] == found["nodes"] > 50, "every operator has a shader"
    assert found["largest"] > 1, "logits near zero would agree with anything"
    assert found[["from_python", "logits_from_wasm", "features_from_wasm"]].max() < 1e-3
    assert found["webgpu_ms"] > 0 and "swiftshader" in where["adapter"].lower()


def test_webgpu_agreed_on_the_recorded_chip():
    table = pd.read_csv(results_dir() / "live-webgpu.csv")
    assert list(table["network"]) == [*SHOWN, "asymmnet_small-drawn"] and (table["on_chip"] == table["nodes"]).all()
    assert table[["from_python", "logits_from_wasm", "features_from_wasm"]].max().max() < 1e-3
    assert "SwiftShader" not in table["adapter"].iloc[0] and (table["largest"] > 1).all()


def test_the_page_says_it_in_chinese_too():
    said = [live_results.none_of_these(), live_results.heads(), live_results.taught(), live_results.operators(),
            live_results.slower(), live_results.webgpu()]
    assert all("nan" not in text for text in said)
    output = [{"output_type": "display_data", "data": {"text/markdown": text}, "metadata": {}} for text in said]
    left = {chinese: foreign(chinese, "zh_CN") for part in output
            for _, chinese in texts(part, "zh_CN", catalogue("zh_CN"))}
    assert not {text: words for text, words in left.items() if words}
