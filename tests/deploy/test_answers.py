"""Many pictures: every name is found, every file gets its answer or its reason, in each form, in bounded memory."""
import csv
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from PIL import Image

from asymmlib.__main__ import main
from asymmlib.data.pictures import load_picture, normalise
from asymmlib.data.sample import CLASSES, draw
from asymmlib.deploy.answers import FORMS, Answer, answers, find_pictures, form_of, write_answers
from asymmlib.models import create_model
from asymmlib.runs import Classifier, load_pretrained
from asymmlib.weights.own import save_weights
from asymmlib.weights.settings import marks

SMALL = ["predict", "--from", "asymmnet_small"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five drawn pictures, one of them below a folder, one that is none, one hidden."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    for number, name in enumerate(("a.png", "b c.jpg", "ü.png", "below/d.png", "z.bmp")):
        draw(CLASSES[number], np.random.default_rng(number), 96).save(folder / name)
    (folder / "no.jpg").write_text("no picture")
    (folder / ".hidden.png").write_text("litter")
    (folder / "notes.txt").write_text("no picture by its name")
    return folder


def names(paths):
    return [os.path.basename(path) for path in paths]


def test_words_that_name_pictures(folder, tmp_path):
    every = ["a.png", "b c.jpg", "no.jpg", "z.bmp", "ü.png", "d.png"]
    assert names(find_pictures([str(folder)])) == every
    assert names(find_pictures([str(folder / "*.png")])) == ["a.png", "ü.png"]
    assert names(find_pictures([str(folder / "**" / "*.png")])) == ["a.png", "d.png", "ü.png"]
    assert find_pictures([str(folder / "gone.png"), str(folder / "gone*.png")]) == [
        str(folder / "gone.png"), str(folder / "gone*.png")]
    (tmp_path / "a[1].png").write_bytes((folder / "a.png").read_bytes())
    assert names(find_pictures([str(tmp_path / "a[1].png")])) == ["a[1].png"], "a name that looks like a pattern"
    assert find_pictures(["x", "-"], io.BytesIO(b"a.png\n\nb c.jpg\r\n")) == ["x", "a.png", "b c.jpg"]
    assert find_pictures(["-"], io.BytesIO(b"a\nb.png\0c.png\0")) == ["a\nb.png", "c.png"]
    assert find_pictures([str(tmp_path)]) == [str(tmp_path / "a[1].png")]
    with pytest.raises(ValueError, match="no picture is named"):
        find_pictures(["-"], io.BytesIO(b"\n"))


def test_answers_stay_in_order_around_bad_files(folder, small):
    paths = find_pictures([str(folder), str(folder / "gone.png"), str(folder / "below")])
    done = []
    found = list(answers(small, paths, 2, done.append))
    assert [answer.path for answer in found] == paths and sum(done) == len(paths)
    assert names(answer.path for answer in found if answer.error) == ["no.jpg", "gone.png"]
    assert "no.jpg is not a readable picture" in found[2].error and "there is no such file" in found[6].error
    for answer in found:
        if not answer.error:
            expected = small.predict([answer.path])[0]
            assert [name for name, _ in answer.classes] == [small.classes[i] for i in expected.argsort()[::-1][:2]]
            np.testing.assert_allclose([share for _, share in answer.classes], np.sort(expected)[::-1][:2], atol=1e-5)


def test_memory_is_bounded_by_the_size_of_a_batch(small):
    sizes = {size: Classifier("x", "x", None, ("a", "b"), size, (0,) * 3, (1,) * 3, "", {}).batch
             for size in (32, 64, 128, 224, 256, 512, 1024)}
    assert all(size**2 * batch <= 2**19 or batch == 1 for size, batch in sizes.items())
    assert sizes[64] == 64 and sizes[256] == 8 and sizes[1024] == 1
    given = []
    counting = SimpleNamespace(batch=3, image_size=8, classes=("a", "b"), none_below=None,
                               probabilities=lambda pixels: given.append(len(pixels)) or np.ones((len(pixels), 2)) / 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("asymmlib.deploy.answers.load_picture", lambda path, size: np.zeros((8, 8, 3), np.uint8))
        assert len(list(answers(counting, ["p"] * 8))) == 8 and given == [3, 3, 2]


@pytest.mark.slow
def test_batches_answer_as_single_pictures_do(small, tmp_path):
    """The order of additions may follow the size of a batch: no more may differ than float32 leaves open."""
    paths = []
    for number in range(20):
        paths.append(str(tmp_path / f"{number}.png"))
        draw(CLASSES[number % len(CLASSES)], np.random.default_rng([7, number]), 96).save(paths[-1])
    together, single = small.predict(paths), np.concatenate([small.predict([path]) for path in paths])
    pixels = np.stack([load_picture(path, small.image_size) for path in paths])
    inputs = normalise(pixels, small.mean, small.std).astype(np.float64)
    exact = load_pretrained("asymmnet_small").network.to(dtype="float64")
    with paddle.no_grad():
        logits = exact(paddle.to_tensor(inputs)).numpy()
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    error = np.abs(single - shares).max()
    assert 0 < error < 1e-4 and np.abs(together - single).max() <= 4 * error
    np.testing.assert_array_equal(together.argmax(axis=1), single.argmax(axis=1))


def test_none_of_these(folder, small):
    uncertain = SimpleNamespace(batch=4, image_size=8, classes=("a", "b", "c"), none_below=0.6,
                                probabilities=lambda pixels: np.array([[0.5, 0.3, 0.2], [0.3, 0.7, 0.0]]))
    first, second = answers(uncertain, [str(folder / "a.png"), str(folder / "z.bmp")])
    assert first.none and not second.none
    free = replace(small, provenance={key: value for key, value in small.provenance.items() if key != "none_below"})
    best = small.predict([folder / "a.png"]).max()
    for classifier, none in ((small, best < small.none_below), (free, False)):
        assert next(answers(classifier, [str(folder / "a.png")])).none == none
    lines = written([first, second], "text").splitlines()
    assert "none of these" in lines[1] and "50.0%  a" in lines[2] and "none of these" not in "".join(lines[5:])
    said = [json.loads(line) for line in written([first, second], "json").splitlines()]
    assert [line["none_of_these"] for line in said] == [True, False]


def written(found, form, top=3):
    file = io.StringIO()
    assert list(write_answers(found, file, form, top)) == list(found)
    return file.getvalue()


FOUND = [Answer("a,b \"c\".png", (("ant", 0.75), ("bee, wild", 0.25))), Answer("x\udcff.jpg", error="x.jpg is damaged"),
         Answer("贝.png", (("蚁", 1.0),))]


def test_text():
    assert written(FOUND[::2], "text") == "a,b \"c\".png\n   75.0%  ant\n   25.0%  bee, wild\n贝.png\n  100.0%  蚁\n"
    assert written(FOUND[1:2], "text") == "", "what is wrong with a file goes to stderr"


def test_json_is_one_object_a_line():
    first, bad, last = map(json.loads, written(FOUND, "json").splitlines())
    assert first == {"path": "a,b \"c\".png", "none_of_these": False, "classes": [
        {"class": "ant", "probability": 0.75}, {"class": "bee, wild", "probability": 0.25}]}
    assert bad == {"path": "x\udcff.jpg", "error": "x.jpg is damaged"} and last["classes"][0]["class"] == "蚁"


def test_csv_is_a_table():
    rows = list(csv.DictReader(io.StringIO(written(FOUND, "csv", 2))))
    assert list(rows[0]) == ["path", "none_of_these", "class_1", "probability_1", "class_2", "probability_2", "error"]
    assert (rows[0]["path"], rows[0]["class_2"], rows[0]["probability_2"]) == ("a,b \"c\".png", "bee, wild", "0.250000")
    assert rows[1]["error"] == "x.jpg is damaged" and rows[1]["class_1"] == "" and rows[1]["path"] == "x\\udcff.jpg"


def test_the_end_of_a_name_tells_the_form():
    assert [form_of(name) for name in (None, "a.txt", "a.json", "a.JSONL", "a.csv")] == [
        "text", "text", "json", "json", "csv"]
    assert form_of("a.txt", "csv") == "csv" and set(FORMS) == {"text", "json", "csv"}
    with pytest.raises(ValueError, match=r"a\.xlsx: the end of the name tells no form; known: \.txt, \.json"):
        form_of("a.xlsx")


def test_the_command(folder, tmp_path, capsys, monkeypatch):
    target = tmp_path / "to" / "answers.csv"
    assert main([*SMALL, str(folder), "--output", str(target), "--top", "1"]) == 2
    said, rows = capsys.readouterr(), list(csv.DictReader(target.open(encoding="utf-8")))
    assert said.out == f"{target}: 5 pictures answered\n" and len(rows) == 6
    assert said.err.count("error:") == 2 and "1 of 6 files cannot be read as pictures; the others are" in said.err
    assert [row["error"] != "" for row in rows] == [False, False, True, False, False, False]
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(os.fsencode(folder / "a.png"))))
    assert main([*SMALL, "-", "--json", "--top", "99"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(folder / "a.png") and len(found["classes"]) == 16
    np.testing.assert_allclose(sum(entry["probability"] for entry in found["classes"]), 1)


def test_nothing_is_written_where_nothing_is_answered(folder, tmp_path, capsys):
    target = tmp_path / "answers.json"
    assert main(["predict", "--from", "nothing", str(folder), "--output", str(target)]) == 2
    assert main([*SMALL, str(folder), "--output", str(tmp_path / "x.doc")]) == 2
    assert "the end of the name tells no form" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_numbers_that_are_not_finite_are_the_weights_fault(folder, capsys, home, tmp_path):
    network = create_model("asymmnet_small", 3, width=0.35)
    paddle.assign(paddle.full_like(network.classifier.weight, 3e38), network.classifier.weight)
    save_weights(network, tmp_path / "wild.safetensors", marks({"size": 32, "mean": [0.5] * 3, "std": [0.01] * 3}))
    assert main(["predict", "--from", str(tmp_path / "wild.safetensors"), str(folder / "a.png")]) == 2
    error = capsys.readouterr().err
    assert "wild answers with numbers that are not finite" in error and "--from" in error and "base_lr" not in error


# Linux hands ru_maxrss of the process that starts another on to it, even through exec; VmHWM is a program's own
PEAK = """
import pathlib, re, resource, sys
from asymmlib.__main__ import main
code = main(sys.argv[1:])
status = pathlib.Path("/proc/self/status")
peak = (1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) if status.is_file() else
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
print(code, peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="resource is POSIX'")
def test_large_pictures_stay_within_a_gigabyte(tmp_path):
    """It took 2.4 GB when 64 pictures of 256 pixels went through the network at a time."""
    network, path = create_model("asymmnet_large", 4), tmp_path / "x.safetensors"
    save_weights(network, path, marks({"classes": list("abcd"), "size": 256, "mean": [0.5] * 3, "std": [0.25] * 3}))
    Image.effect_noise((400, 300), 60).convert("RGB").save(tmp_path / "p.jpg")
    (tmp_path / "list").write_text(f"{tmp_path / 'p.jpg'}\n" * 100)
    with (tmp_path / "list").open() as listed:
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", PEAK, "predict", "--from", path, "-", "--output",
                               tmp_path / "x.csv"], stdin=listed, capture_output=True, text=True, timeout=500)
    code, peak = done.stdout.split()[-2:]
    assert code == "0" and int(peak) < 1e9, (done.stderr, peak)
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 101
