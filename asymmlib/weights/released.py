"""The trained networks that come with the book: which there are, and their files, checked before anything is loaded.

Each is a safetensors file and a card, `<name>.json`: classes, preprocessing, accuracy, recipe, and the file's SHA-256.
A checkout has all of them in `weights/`; a wheel brings the small one. `asymmlib.load_pretrained` makes them usable.
"""
import json
from pathlib import Path
from typing import Any

from asymmlib.base.files import checksum
from asymmlib.base.folders import weights_dir

__all__ = ["RELEASED", "available", "find_released"]

# model: settings; MobileNetV2 for those who want to compare, as the live page does
RELEASED = {"asymmnet_large": {"asymmrate": 1}, "asymmnet_small": {"asymmrate": 1}, "mobilenet_v2": {}}


def available(folder: Path | str | None = None) -> list[str]:
    """Names of the released networks whose files are here, in the order of `RELEASED`."""
    folder = Path(folder or weights_dir())
    return [name for name in RELEASED if all((folder / f"{name}{suffix}").is_file()
                                             for suffix in (".json", ".safetensors"))]


def find_released(name: str, folder: Path | str | None = None) -> tuple[dict[str, Any], Path]:
    """Return (card, path of the safetensors file) of a released network; folder: default `weights_dir()`.

    Raises `ValueError` for an unknown name, a damaged card, and weights that are not those of the card by their
    SHA-256; `FileNotFoundError` where a file is missing.
    """
    folder = Path(folder or weights_dir())
    if name not in RELEASED:
        raise ValueError(f"no released weights of {name!r}; there are: {', '.join(RELEASED)}")
    if name not in available(folder):
        here = ', '.join(available(folder)) or 'none'
        raise FileNotFoundError(f"no released weights of {name} in {folder} (there: {here}); "
                                "a checkout has them in weights/: name that folder in ASYMMLIB_WEIGHTS, or name a run "
                                "of your own with --run")
    path = folder / f"{name}.safetensors"
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        expected = card["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path.with_suffix('.json')} is damaged ({type(error).__name__}: {error}): fetch it again "
                         "from the project's weights/") from error
    if (found := checksum(path)) != expected:
        raise ValueError(f"{path} is not the file of its card: its SHA-256 is {found}, the card's {expected}; fetch it "
                         "again from the project's weights/")
    return card, path
