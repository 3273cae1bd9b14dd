"""The trained networks that come with the book: which there are, and their files, checked before anything is loaded.

Each is a safetensors file and a card, `<name>.json`: classes, preprocessing, accuracy, recipe, and the file's SHA-256.
A checkout has all of them in `weights/`; a wheel brings the small one. `asymmlib.load_pretrained` makes them usable.
"""
import json
import sys
from pathlib import Path
from typing import Any

from asymmlib.base.files import checksum, has_file
from asymmlib.base.folders import weights_dir

__all__ = ["RELEASED", "available", "best_available", "find_released"]

# model: settings; MobileNetV2 for those who want to compare, as the live page does
RELEASED = {"asymmnet_large": {"asymmrate": 1}, "asymmnet_small": {"asymmrate": 1}, "mobilenet_v2": {}}
# what a card has to hold
KINDS = {"model": str, "settings": dict, "classes": list, "image_size": int, "mean": list, "std": list, "licence": str}


def available(folder: Path | str | None = None) -> list[str]:
    """Names of the released networks whose files are here, in the order of `RELEASED`."""
    folder = Path(folder or weights_dir())
    return [name for name in RELEASED if all(has_file(folder / f"{name}{suffix}")
                                             for suffix in (".json", ".safetensors"))]


def best_available() -> str:
    """The first of the released networks whose weights are here; says so where the first of all is not."""
    best, here = next(iter(RELEASED)), available()
    if here and here[0] != best:
        print(f"{here[0]} answers: the weights of {best} are not here (a checkout has them; ASYMMLIB_WEIGHTS names "
              "their folder)", file=sys.stderr)
    return (here or [best])[0]


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
                                "a checkout has them in weights/: name that folder in ASYMMLIB_WEIGHTS, or use weights "
                                "of your own (--from)")
    path = folder / f"{name}.safetensors"
    try:
        card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        expected = card["sha256"]
        _check_card(card)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"{path.with_suffix('.json')} is damaged ({type(error).__name__}: {error}): fetch it again "
                         "from the project's weights/") from error
    if (found := checksum(path)) != expected:
        raise ValueError(f"{path} is not the file of its card: its SHA-256 is {found}, the card's {expected}; fetch it "
                         "again from the project's weights/")
    return card, path


def _check_card(card):
    """Raise `ValueError` or `KeyError` for a card that says what no network can be used by."""
    wrong = [key for key, kind in KINDS.items() if not isinstance(card[key], kind)]
    if not wrong:
        numbers = {"mean": card["mean"], "std": card["std"], "image_size": [card["image_size"]] * 3}
        wrong = [key for key, values in numbers.items() if len(values) != 3 or not all(
            isinstance(value, int | float) and abs(value) < 1e4 and (value > 0 or key == "mean") for value in values)]
        wrong += ["image_size"] if card["image_size"] < 32 else []
        none = card.get("none_below", 0)
        wrong += [] if isinstance(none, int | float) and 0 <= none <= 1 else ["none_below"]
        wrong += [] if card["classes"] and all(isinstance(name, str) for name in card["classes"]) else ["classes"]
    if wrong:
        raise ValueError(f"no usable {', '.join(wrong)}")
