"""Recipes: every number of a training run in one frozen record, and the named ones of the book.

A recipe holds settings and checks them; `asymmlib.training` acts on them. Where a recipe repeats a flaw of the
article, it does so on purpose, under a field of its own, so that the price of each flaw can be measured. Notebook 03
reads one in section 2 and shows what a schedule really does in section 3.
"""
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any

__all__ = [
    "AUGMENTATIONS",
    "BEFORE",
    "INITIALISATIONS",
    "NORMALISATIONS",
    "NORMS",
    "OPTIMIZERS",
    "RECIPES",
    "SCHEDULES",
    "Recipe",
    "as_recorded",
    "get_recipe",
    "shorten",
]

# What each choice does is written where it is carried out (asymmlib.training, asymmlib.dataset).
SCHEDULES = {
    "cosine": "half a cosine from base_lr to 0, one step per epoch",
    "cosine-per-batch": "the article's accident: a cosine over `epochs` steps, but stepped after every batch",
    "warmup-cosine": "linear warm-up over warmup_epochs, then half a cosine, one step per batch",
}
OPTIMIZERS = {"momentum": "SGD with momentum", "nesterov": "SGD with Nesterov momentum"}
NORMALISATIONS = {
    "measured": "mean and standard deviation of the train split",
    "article": "the article's constants, which belong to other pictures",
}
AUGMENTATIONS = {
    "rotate": "random rotation by at most `rotation` degrees, bilinear: what the article means",
    "rotate-nearest": "the same with nearest-neighbour sampling: what the article does",
    "rotate-flip": "rotation, and a random mirror image",
    "crop-flip": "random resized crop of 8 to 100 % of the area, random mirror image: usual on ImageNet",
    "crop-flip-colour": "the same, and brightness, contrast and saturation times 0.6 to 1.4 each",
    "none": "no augmentation",
}
INITIALISATIONS = {
    "he": "He-normal by each filter's own fan-in in every convolution and hidden linear layer, N(0, 0.01) in the "
          "classifier, biases 0",
    "paddle-default": "Paddle 3.3.1's rule: He-normal by all input channels, also of a depthwise filter; "
                      "Xavier-uniform in linear layers, biases 0",
    "as-built": "whatever the network's own code and the installed Paddle do",
}
NORMS = {
    "common": "momentum 0.9 and epsilon 1e-5 in every batch norm",
    "as-built": "each network's own",
}
# What runs did before a field of the recipe existed, where that is not the field's default
BEFORE: dict[str, Any] = {"initialisation": "as-built", "norm": "as-built"}


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, except the model.

    `data` is a choice of `asymmlib.data.sources.prepare`, or None for what `ASYMMLIB_DATA` says. Sizes are pixels,
    rates are per step of the schedule, `rotation` is degrees. `asymmnet_weight_decay` gives AsymmNet a weight decay of
    its own (the article's unfair comparison); None treats all models alike. `train_per_class` keeps only the first
    pictures of each class of the train split, an epoch goes `passes` times through what is kept, so that epochs of few
    pictures are not too short; `drop_last` leaves out those of an epoch that do not fill a batch. From given weights
    (`start` of `asymmlib.training.train`) all but the last layer is held still for the first `frozen_epochs` epochs;
    where it trains, its rate is `base_lr` times `backbone_rate`.
    `initialisation` and `norm` treat all networks alike, `dropout` all but VGG19 (two layers of its own) and ResNet50
    (none). `accelerate` uses the faster CPU kernels of `asymmlib.fast` where they can be had (no effect on a GPU, none
    on results beyond rounding). `amp` computes in float16 where that is safe and scales the loss, on a device that
    supports it (GPUs; no effect on a CPU). `patience` ends a run after so many epochs in a row without a better eval
    top-1; None runs all epochs. Raises `ValueError` that names the field and what it accepts.
    """

    name: str
    image_size: int
    epochs: int
    batch_size: int = 32
    base_lr: float = 0.01
    data: str | None = None
    test_share: bool = False
    train_per_class: int | None = None
    passes: int = 1
    drop_last: bool = False
    frozen_epochs: int = 0
    backbone_rate: float = 1.0
    initialisation: str = "he"
    norm: str = "common"
    optimizer: str = "momentum"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    asymmnet_weight_decay: float | None = None
    decay_bias_and_norm: bool = True
    schedule: str = "cosine"
    warmup_epochs: int = 0
    label_smoothing: float = 0.0
    dropout: float = 0.2
    zero_last_gamma: bool = False
    normalisation: str = "measured"
    augmentation: str = "rotate"
    rotation: float = 10.0
    accelerate: bool = True
    amp: bool = False
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for field, known in (("schedule", SCHEDULES), ("optimizer", OPTIMIZERS), ("normalisation", NORMALISATIONS),
                             ("augmentation", AUGMENTATIONS), ("initialisation", INITIALISATIONS), ("norm", NORMS)):
            if not isinstance(getattr(self, field), str) or getattr(self, field) not in known:
                raise ValueError(f"recipe {self.name!r}: unknown {field} {getattr(self, field)!r}; "
                                 f"known: {', '.join(known)}")
        for field, low, high in _LIMITS:
            value = getattr(self, field)
            if value is None and field in _OPTIONAL:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
                raise ValueError(f"recipe {self.name!r}: {field} is {value!r}; it must lie from {low} to {high}")
        for field in _WHOLE:
            if getattr(self, field) is not None and not isinstance(getattr(self, field), int):
                raise ValueError(f"recipe {self.name!r}: {field} is {getattr(self, field)!r}; it must be an integer")
        for field in _FLAGS:
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"recipe {self.name!r}: {field} is {getattr(self, field)!r}; it must be True or False")
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"recipe {self.name!r}: warmup_epochs ({self.warmup_epochs}) must be fewer than epochs "
                             f"({self.epochs})")
        if self.frozen_epochs > self.epochs:
            raise ValueError(f"recipe {self.name!r}: frozen_epochs ({self.frozen_epochs}) must not be more than epochs "
                             f"({self.epochs})")

    def replace(self, **changes: Any) -> "Recipe":
        """A copy with some fields changed; `ValueError` for a field that does not exist."""
        unknown = sorted(set(changes) - {field.name for field in fields(self)})
        if unknown:
            raise ValueError(f"a recipe has no field {', '.join(unknown)}; it has "
                             f"{', '.join(field.name for field in fields(self))}")
        return replace(self, **changes)

    def as_dict(self) -> dict[str, Any]:
        """The fields as a plain dictionary, ready for JSON."""
        return asdict(self)


# field, least, most
_LIMITS = (
    ("image_size", 32, 1024), ("epochs", 1, 10_000), ("batch_size", 1, 8192), ("base_lr", 1e-8, 100.0),
    ("train_per_class", 1, 10**7), ("passes", 1, 10_000), ("frozen_epochs", 0, 10_000), ("backbone_rate", 1e-8, 1.0),
    ("momentum", 0.0, 0.9999), ("weight_decay", 0.0, 1.0),
    ("asymmnet_weight_decay", 0.0, 1.0), ("warmup_epochs", 0, 10_000), ("label_smoothing", 0.0, 0.9999),
    ("dropout", 0.0, 0.9999), ("rotation", 0.0, 180.0), ("patience", 1, 10_000), ("seed", 0, 2**31 - 1),
)
_WHOLE = ("image_size", "epochs", "batch_size", "train_per_class", "passes", "frozen_epochs", "warmup_epochs",
          "patience", "seed")
_OPTIONAL = ("train_per_class", "asymmnet_weight_decay", "patience")
_FLAGS = ("test_share", "drop_last", "decay_bias_and_norm", "zero_last_gamma", "accelerate", "amp")

_ARTICLE = Recipe(
    "article", image_size=256, epochs=100, batch_size=32, base_lr=0.01, asymmnet_weight_decay=2e-4,
    schedule="cosine-per-batch", normalisation="article", augmentation="rotate-nearest")

RECIPES = {recipe.name: recipe for recipe in (
    # the whole pipeline in seconds: shows that everything works, not how good a network is
    Recipe("quick", image_size=40, epochs=3, batch_size=32, base_lr=0.05),
    # a real result in tens of minutes on two cores
    Recipe("laptop", image_size=128, epochs=30, batch_size=32, base_lr=0.05),
    # as published, flaws and all
    _ARTICLE,
    # the same numbers with the flaws mended
    _ARTICLE.replace(name="article-fixed", asymmnet_weight_decay=None, schedule="cosine", normalisation="measured",
                     augmentation="rotate"),
    # like the paper's run on ImageNet (authors' log: 8 GPUs x 256 pictures, 360 epochs; optimiser and colours of their
    # script), without its PCA noise and with squashed pictures: notebook 06, section 8, lists what differs
    Recipe("imagenet-like", image_size=224, epochs=360, batch_size=2048, base_lr=2.6, schedule="warmup-cosine",
           warmup_epochs=5, weight_decay=3e-5, decay_bias_and_norm=False, label_smoothing=0.1, optimizer="nesterov",
           augmentation="crop-flip-colour"),
)}


def as_recorded(fields_of_run: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe of a run's record, with what runs did before a field existed that the record has not got."""
    defaults = {field.name: field.default for field in fields(Recipe) if field.default is not MISSING}
    return {**defaults, **BEFORE, **fields_of_run}


def get_recipe(name: str | None = None) -> Recipe:
    """Return a named recipe; without a name the one in `ASYMMLIB_RECIPE`, or "quick".

    Raises `ValueError` for an unknown name, listing the known ones.
    """
    name = name or os.environ.get("ASYMMLIB_RECIPE") or "quick"
    if name not in RECIPES:
        raise ValueError(f"unknown recipe {name!r}; known: {', '.join(RECIPES)}")
    return RECIPES[name]


def shorten(recipe: Recipe) -> Recipe:
    """The "quick" recipe with twelve pictures a class and a tenth of the rate, as "quick-heavy"; others as they are.

    For networks of which one step takes as long as fifty of AsymmNet's: ResNet50 and VGG19 in the notebooks. Without
    batch norm VGG19 runs away at the usual rate: its weights stop being numbers within three epochs.
    """
    heavy = {"name": "quick-heavy", "train_per_class": 12, "base_lr": recipe.base_lr / 10}
    return recipe.replace(**heavy) if recipe.name == "quick" else recipe
