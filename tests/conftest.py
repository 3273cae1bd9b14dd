"""Fixtures shared by all tests."""
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# nbformat loads jsonschema, and that this, which builds its grammar for a second; nothing here checks such addresses
sys.modules.setdefault("rfc3987_syntax", None)
SHARED = Path(__file__).resolve().parents[2] / "shared"  # reference numbers and pictures, where a checkout has them


def pytest_configure():
    """Let Ctrl-C and SIGHUP do again what they do in a terminal: what `&` and nohup start ignores them, and so would
    every process that a test starts."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        ours = number and threading.current_thread() is threading.main_thread()
        if ours and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session")
def shared():
    """The folder of reference data beside the project; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no folder 'shared' beside the project: the larger reference data are not here")
    return SHARED


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Data and runs of one test in a folder of its own."""
    monkeypatch.setenv("ASYMMLIB_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("ASYMMLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("ASYMMLIB_DATA", raising=False)
    monkeypatch.delenv("ASYMMLIB_RECIPE", raising=False)
    return tmp_path


@pytest.fixture(scope="session")
def write_colours():
    """Function (folder, pictures a class) -> folder with three classes of noisy pictures whose mean colour tells the
    class: a network learns them in seconds."""
    def write(root, per_class):
        rng = np.random.default_rng(0)
        for index, name in enumerate(("blue", "green", "red")):
            folder = root / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                pixels = rng.integers(0, 120, (40, 48, 3), dtype=np.uint8)
                pixels[..., 2 - index] += 130
                Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        return root
    return write


@pytest.fixture
def picture_folder(tmp_path, write_colours):
    """Ten pictures a class of `write_colours`."""
    return write_colours(tmp_path / "pictures", 10)


@pytest.fixture(scope="session")
def common(request, tmp_path_factory):
    """A folder that all processes of one session have in common, for what takes long to make and is only read."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(scope="session")
def sample_home(common):
    """A folder of data for the drawn pictures: drawing them takes longer than what most tests do with them. `prepare`
    has one process draw and the others wait."""
    return common / "drawn"


@pytest.fixture(scope="session")
def sample(sample_home):
    """The drawn pictures, which are what `prepare` makes unless told otherwise."""
    from asymmlib.data.sources import prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASYMMLIB_HOME", str(sample_home))
        patch.delenv("ASYMMLIB_DATA", raising=False)
        return prepare()


@pytest.fixture
def few_draws(monkeypatch):
    """Intervals from 1,000 resamplings in place of 10,000, for tests of what is made of them."""
    from asymmbook.evidence.inference import DRAWS, compare_networks
    level, draws, seed = compare_networks.__defaults__
    assert draws == DRAWS
    monkeypatch.setattr(compare_networks, "__defaults__", (level, DRAWS // 10, seed))


@pytest.fixture(scope="session")
def caltech16(shared, common):
    """Caltech-16 from the archive beside the project, prepared once a session in a folder of its own."""
    from asymmlib.data.sources import prepare
    archive = shared / "data" / "caltech-101.zip"
    if not archive.is_file():
        pytest.skip("no shared/data/caltech-101.zip: the pictures of Caltech-101 are not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASYMMLIB_HOME", str(common / "caltech"))
        return prepare("caltech16", archive=archive, progress=False)


@pytest.fixture(scope="session")
def small():
    """The released AsymmNet-Small."""
    from asymmlib.runs import load_pretrained
    return load_pretrained("asymmnet_small")


@pytest.fixture(scope="session")
def exported(small, common):
    """A folder with its export, bytes as input among the forms; tests only read it."""
    from asymmlib.base.files import locked
    from asymmlib.deploy.export import export_classifier
    with locked(common / "exported"):
        if not (common / "exported").exists():
            export_classifier(small, common / "exported", uint8=True)
    return common / "exported"
