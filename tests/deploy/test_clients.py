"""The programs that how-to-run.md shows: without asymmlib and Paddle they give the answers of `predict`, or stop."""
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from asymmbook.checkout import project_root
from asymmlib.data.sample import CLASSES, draw
from asymmlib.deploy import engines
from asymmlib.deploy.export import export_classifier

CLIENT = project_root() / "book" / "clients" / "classify.py"
NODE = CLIENT.with_suffix(".mjs")
PACKAGES = project_root() / "book" / "live" / "node_modules"
# as where neither is installed
ALONE = """
import runpy, sys
sys.modules.update(asymmlib=None, paddle=None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(engines.missing("onnxruntime")),
                                                   reason="the extra `ship` is not installed")]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, paths = tmp_path_factory.mktemp("pictures"), []
    for number in range(40):
        paths.append(str(folder / f"{number:02d}.{('png', 'jpg')[number % 2]}"))
        draw(CLASSES[number % len(CLASSES)], np.random.default_rng([11, number]), 120).save(paths[-1])
    return paths


def client(model, *paths):
    return subprocess.run([sys.executable, "-W", "ignore", "-c", ALONE, CLIENT, model, *paths], capture_output=True,
                          text=True, timeout=300)


def check_answers(done, small, pictures, tolerance):
    expected = small.predict(pictures)
    assert done.returncode == 0, done.stderr
    form = r"(.+): (.+) ([\d.]+)%(, none of these)?"
    found = [re.fullmatch(form, line).groups() for line in done.stdout.splitlines()]
    assert [path for path, *_ in found] == pictures
    assert [label for _, label, *_ in found] == [small.classes[index] for index in expected.argmax(axis=1)]
    shares = np.array([float(share) for _, _, share, _ in found]) / 100
    assert [bool(none) for *_, none in found] == list(expected.max(axis=1) < (small.none_below or 0))
    np.testing.assert_allclose(shares, expected.max(axis=1), atol=tolerance)


@pytest.mark.parametrize("name", ["model", "model-float16", "model-uint8"])
def test_the_client_answers_as_predict_does(small, exported, pictures, name):
    """Printed are tenths of a percent."""
    check_answers(client(exported / f"{name}.onnx", *pictures), small, pictures,
                  2e-3 if name == "model-float16" else 6e-4)


@pytest.fixture(scope="module")
def unsure(small, tmp_path_factory, pictures):
    """`small` with a threshold that half of the pictures do not reach, and the folder of its export."""
    limit = float(np.median(small.predict(pictures).max(axis=1)))
    known = replace(small, provenance={**small.provenance, "none_below": limit})
    folder = tmp_path_factory.mktemp("unsure")
    export_classifier(known, folder)
    return known, folder


def test_the_client_says_none_of_these(unsure, pictures):
    known, folder = unsure
    done = client(folder / "model.onnx", *pictures)
    check_answers(done, known, pictures, 6e-4)
    assert done.stdout.count("none of these") == len(pictures) // 2


def test_the_client_for_node_says_none_of_these(unsure, pictures, node):
    known, folder = unsure
    check_answers(node(folder, *pictures), known, pictures, 6e-4)


@pytest.fixture
def node(tmp_path):
    """A function that runs the client for Node where the page puts it: beside pixels.js and the packages."""
    if not shutil.which("node") or not (PACKAGES / "sharp").is_dir():
        pytest.skip("Node, or its packages, are not here: make setup fetches them with npm")
    for path in (NODE, project_root() / "book" / "static" / "live" / "pixels.js"):
        shutil.copy(path, tmp_path)
    (tmp_path / "node_modules").symlink_to(PACKAGES, target_is_directory=True)
    return lambda *arguments: subprocess.run(["node", tmp_path / NODE.name, *arguments], capture_output=True, text=True,
                                             timeout=300)


def test_the_client_for_node_answers_as_predict_does(small, exported, pictures, node):
    check_answers(node(exported, *pictures), small, pictures, 6e-4)


def test_the_client_for_node_stops_by_itself(exported, pictures, node, tmp_path):
    shutil.copytree(exported, tmp_path / "other")
    facts = json.loads((exported / "export.json").read_text(encoding="utf-8"))
    facts["preprocessing"]["mean"] = [0.485, 0.456, 0.406]
    (tmp_path / "other" / "export.json").write_text(json.dumps(facts), encoding="utf-8")
    done = node(tmp_path / "other", pictures[0])
    assert done.returncode and "the reference picture gets other logits" in done.stderr and not done.stdout


@pytest.mark.parametrize("change", [{"mean": [0.485, 0.456, 0.406]}, {"std": [1.0] * 3}, {"size": [48, 64]}])
def test_a_client_that_prepares_otherwise_stops_by_itself(exported, pictures, tmp_path, change):
    import onnx
    model = onnx.load(exported / ("model-uint8.onnx" if "size" in change else "model.onnx"))
    for entry in model.metadata_props:
        if entry.key == "preprocessing":
            entry.value = json.dumps({**json.loads(entry.value), **change})
    onnx.save(model, tmp_path / "other.onnx")
    done = client(tmp_path / "other.onnx", pictures[0])
    assert done.returncode and not done.stdout


@pytest.mark.parametrize("path", [CLIENT, NODE], ids=["python", "node"])
def test_they_are_short(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40 and all(len(line) < 121 for line in lines)
