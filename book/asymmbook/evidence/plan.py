"""The first comparison as data: which runs were made, by which recipes. The trial (`trial.py`) replaces it.

Networks kept their own initialisation and batch norm in these runs, which is why they are replaced.
`asymmbook.evidence.findings` says what the recorded ones show.
"""
from typing import Any, NamedTuple

from asymmlib.recipes import BEFORE, RECIPES, Recipe

__all__ = ["FAIR", "FLAWED", "PLAN", "Planned"]


class Planned(NamedTuple):
    """One run of the plan; `name` is its folder below runs/ and its row in results/archive/runs.csv."""

    group: str
    model: str
    recipe: Recipe
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """group-model-settings-recipe-seed, readable and unique."""
        settings = [f"{key}{value}" for key, value in self.settings.items()]
        return "-".join([self.group, self.model, *settings, self.recipe.name, f"seed{self.recipe.seed}"])


# Small pictures, so that all of it fits two cores; a fifth of the pictures is kept for the test split.
FAIR = Recipe("fair", image_size=64, epochs=30, batch_size=32, base_lr=0.05, data="caltech16", test_share=True,
              **BEFORE)
# For networks of which an epoch takes as long as ten of the others: one seed, and the rule to stop is stated here
PATIENT = FAIR.replace(name="fair-patient", patience=8)
# VGG19 has no batch norm and may not bear the common learning rate: the same with a tenth of it, outside the comparison
SLOW = PATIENT.replace(name="fair-patient-slow", base_lr=PATIENT.base_lr / 10)
# Do the fast kernels change what is learned? The same run on Paddle's own, held against the spread of the seeds
STOCK = FAIR.replace(name="fair-stock", accelerate=False)

# The article's recipe at this size, flaws and all, and with one of them mended at a time.
FLAWED = RECIPES["article"].replace(name="flawed", image_size=64, epochs=30, data="caltech16", test_share=True,
                                    **BEFORE)
MENDED: dict[str, dict[str, Any]] = {
    "schedule": {"schedule": "cosine"}, "weight-decay": {"asymmnet_weight_decay": None},
    "normalisation": {"normalisation": "measured"}, "interpolation": {"augmentation": "rotate"}}
ALL_MENDED = {key: value for change in MENDED.values() for key, value in change.items()}

COMPARED: tuple[tuple[str, dict[str, int]], ...] = (  # model, settings
    ("asymmnet_large", {"asymmrate": 1}), ("asymmnet_large", {"asymmrate": 0}), ("asymmnet_large", {"asymmrate": 2}),
    ("asymmnet_small", {"asymmrate": 1}), ("mobilenet_v2", {}), ("mobilenet_v3_large", {}))
HEAVY = ("resnet50", "vgg19")
SEEDS = (0, 1, 2)
FLAW_RECIPES = (FLAWED, *(FLAWED.replace(name=f"mended-{name}", **change) for name, change in MENDED.items()),
                FLAWED.replace(name="mended-all", **ALL_MENDED))

# Beside them, the runs at 128 px that the book shows first
LONGER = RECIPES["laptop"].replace(data="caltech16", **BEFORE)
LAPTOP = tuple(Planned("laptop", model, LONGER, {}) for model in ("asymmnet_large", "mobilenet_v2"))
# The question about the fast kernels once more at that size, with seeds that show how far luck alone moves the answer
LAPTOP_STOCK = (Planned("laptop-stock", "asymmnet_large", LONGER.replace(name="laptop-stock", accelerate=False), {}),
                *(Planned("laptop-seeds", "asymmnet_large", LONGER.replace(seed=seed), {}) for seed in SEEDS[1:]))

PLAN = (
    *(Planned("compare", model, FAIR.replace(seed=seed), settings) for seed in SEEDS for model, settings in COMPARED),
    *(Planned("flaws", model, recipe, {}) for recipe in FLAW_RECIPES for model in ("asymmnet_large", "mobilenet_v2")
      # weight decay differs for AsymmNet alone, so the baseline has nothing to mend there
      if not (model == "mobilenet_v2" and recipe.name == "mended-weight-decay")),
    *(Planned("compare", model, PATIENT, {}) for model in HEAVY),
    Planned("slow", "vgg19", SLOW, {}),
    Planned("stock", "asymmnet_large", STOCK, {"asymmrate": 1}),
    *LAPTOP,
    *LAPTOP_STOCK,
)
