"""Where the checkout of the project is: the only place that knows. Without one, there is no book to make."""
from pathlib import Path

__all__ = ["project_root", "results_dir"]


def project_root() -> Path:
    """The folder of the checkout, which holds `_config.yml` and `book/`.

    Raises `FileNotFoundError` where asymmbook was not installed from a checkout in editable mode.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "_config.yml").is_file() or not (root / "book" / "asymmbook").is_dir():
        raise FileNotFoundError("asymmbook makes the book out of a checkout of the project, and this is none: clone it "
                                "and run pip install -e . there")
    return root


def results_dir() -> Path:
    """The folder of recorded results, `results/` in the checkout."""
    return project_root() / "results"
