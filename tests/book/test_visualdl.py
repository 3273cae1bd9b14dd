"""VisualDL's page, as notebook 3 shows it."""
import os

import pytest
from PIL import Image

from asymmbook.checkout import project_root
from asymmbook.pages.browser import find_chromium
from asymmbook.pages.visualdl import HEIGHT, LANGUAGES, PATTERNS, WIDTH, find_runs, photograph


def write_curves(runs):
    visualdl = pytest.importorskip("visualdl")
    for pattern in PATTERNS:
        with visualdl.LogWriter(logdir=str(runs / f"{pattern}-seed0" / "visualdl")) as writer:
            for tag in ("eval/loss", "eval/top1", "lr"):
                for epoch in (1, 2):
                    writer.add_scalar(tag, 1 / epoch, epoch)


def test_missing_runs_are_named(tmp_path):
    (tmp_path / f"{PATTERNS[0]}-seed0").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no run {', '.join(PATTERNS[1:])}: execute notebook 3"):
        find_runs(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("edition", LANGUAGES)
@pytest.mark.skipif(os.environ.get("ASYMMLIB_MUTANTS") != "all", reason="most of a minute: `make mutants` does it, too")
def test_the_page_is_photographed(tmp_path, monkeypatch, edition):
    pytest.importorskip("playwright")
    if find_chromium() is None:
        pytest.skip("no Chromium here; on Debian: apt install chromium")
    write_curves(tmp_path / "runs")
    monkeypatch.setenv("ASYMMLIB_RUNS", str(tmp_path / "runs"))
    with Image.open(photograph(tmp_path / "page.png", edition)) as picture:
        assert picture.size == (WIDTH, HEIGHT)
        colours = {picture.convert("RGB").getpixel((x, y)) for x in range(100, 480, 2) for y in range(240, 520, 2)}
    assert any(max(colour) - min(colour) > 100 for colour in colours), "a chart without a curve"


@pytest.mark.parametrize("name", [name for *_, name in LANGUAGES.values()])
def test_the_stored_pictures_are_small(name):
    path = project_root() / "book" / "images" / name
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        assert picture.size == (WIDTH, HEIGHT)


def test_the_editions_have_pictures_of_their_own():
    english, chinese = ((project_root() / "book" / "images" / name).read_bytes() for *_, name in LANGUAGES.values())
    assert english != chinese
