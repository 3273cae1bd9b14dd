"""The live page's network of drawn things: AsymmNet-Small, trained on the pictures that this project draws itself.

Pictures of Caltech-101 may not come with the book, so the page's samples are drawings, and this network knows them. The
file is recorded, so that every copy of the book answers alike: `python -m asymmbook drawn` trains it anew, on more
drawings than the sample has and from the released network on, in a quarter of an hour of one thread.
"""
from dataclasses import replace
from pathlib import Path

from asymmbook.checkout import project_root
from asymmlib.base.folders import home
from asymmlib.data.sample import draw_sample
from asymmlib.data.sources import Prepared, prepare
from asymmlib.recipes import get_recipe
from asymmlib.records.classifiers import open_classifier
from asymmlib.runs import Classifier
from asymmlib.weights.released import find_released

__all__ = ["MODEL", "PER_CLASS", "RECIPE", "drawings", "drawn_file", "open_drawn", "train_drawn"]

MODEL = "asymmnet_small"
PER_CLASS = 400  # drawings, of which every fifth is held out; the first sixty are those of the sample
RECIPE = get_recipe("quick").replace(name="drawn", image_size=64, epochs=10, data="sample", augmentation="rotate-flip",
                                     label_smoothing=0.1)


def drawn_file() -> Path:
    """Where the recorded weights lie: float16, with their classes and preprocessing."""
    return project_root() / "book" / "live" / f"{MODEL}-drawn.safetensors"


def open_drawn() -> Classifier:
    """The `Classifier` of the recorded file, whose provenance says what it was trained on.

    Raises as `asymmlib.records.classifiers.open_classifier`.
    """
    found = open_classifier(drawn_file())
    return replace(found, licence="MIT", provenance={**found.provenance, "recipe": RECIPE.as_dict()})


def drawings() -> Prepared:
    """The drawings that the network is trained and measured on; drawn the first time."""
    return replace(prepare(draw_sample(home() / "drawn", PER_CLASS)), name="sample")


def train_drawn(target: Path | None = None) -> Classifier:
    """Train on `drawings` by `RECIPE`, from the released network on; write the weights as float16, and open them.

    target: where to (default `drawn_file()`).
    """
    from asymmlib.deploy.export import save_half
    from asymmlib.training import train
    _, start = find_released(MODEL)
    trained = train(MODEL, RECIPE, prepared=drawings(), name="drawn", start=start, new_head=True).classifier()
    save_half(trained.network, target or drawn_file(), {
        "classes": list(trained.classes), "size": trained.image_size, "mean": list(trained.mean),
        "std": list(trained.std)})
    return open_drawn() if target is None else open_classifier(target)
