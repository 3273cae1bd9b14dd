"""Recipes: frozen, checked, named."""
from dataclasses import FrozenInstanceError

import pytest

from asymmlib.recipes import RECIPES, Recipe, get_recipe


def test_names_are_keys_and_settings_are_frozen():
    assert all(name == recipe.name for name, recipe in RECIPES.items())
    with pytest.raises(FrozenInstanceError):
        RECIPES["quick"].epochs = 5


def test_article_and_its_mended_twin_differ_in_the_flaws_only():
    published, mended = RECIPES["article"].as_dict(), RECIPES["article-fixed"].as_dict()
    different = {key for key in published if published[key] != mended[key]}
    assert different == {"name", "asymmnet_weight_decay", "schedule", "normalisation", "augmentation"}
    assert (published["image_size"], published["epochs"], published["batch_size"], published["base_lr"]) == (
        256, 100, 32, 0.01)


def test_environment_variable_chooses(monkeypatch):
    monkeypatch.setenv("ASYMMLIB_RECIPE", "laptop")
    assert get_recipe().name == "laptop"
    assert get_recipe("article").name == "article"
    monkeypatch.delenv("ASYMMLIB_RECIPE")
    assert get_recipe().name == "quick"


def test_unknown_recipe_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown recipe 'fast'; known: quick, laptop, article, article-fixed"):
        get_recipe("fast")


@pytest.mark.parametrize(("change", "message"), [
    ({"epochs": 0}, "epochs is 0; it must lie from 1"),
    ({"image_size": 16}, "image_size is 16; it must lie from 32"),
    ({"epochs": 2.5}, "epochs is 2.5; it must be an integer"),
    ({"base_lr": float("nan")}, "base_lr is nan"),
    ({"momentum": True}, "momentum is True"),
    ({"schedule": "step"}, "unknown schedule 'step'; known: cosine"),
    ({"optimizer": "adam"}, "unknown optimizer 'adam'; known: momentum"),
    ({"normalisation": "none"}, "unknown normalisation"),
    ({"augmentation": "flip"}, "unknown augmentation"),
    ({"epochs": 3, "warmup_epochs": 3}, "warmup_epochs .3. must be fewer"),
    ({"learning_rate": 1}, "a recipe has no field learning_rate; it has name"),
])
def test_bad_settings_name_field_and_range(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe("mine", image_size=64, epochs=10).replace(**change)


def test_only_quick_is_shortened():
    from asymmlib.recipes import shorten
    short = shorten(RECIPES["quick"])
    assert short.as_dict() == {**RECIPES["quick"].as_dict(), "name": "quick-heavy", "train_per_class": 12,
                               "base_lr": 0.005}
    assert all(shorten(recipe) is recipe for name, recipe in RECIPES.items() if name != "quick")


@pytest.mark.parametrize(("field", "least", "most", "step"), [
    ("image_size", 32, 1024, 1), ("epochs", 1, 10_000, 1), ("batch_size", 1, 8192, 1), ("train_per_class", 1, 10**7, 1),
    ("warmup_epochs", 0, 9_999, 1), ("patience", 1, 10_000, 1), ("passes", 1, 10_000, 1),
    ("frozen_epochs", 0, 10_000, 1), ("backbone_rate", 1e-8, 1.0, 1e-9),
    ("seed", 0, 2**31 - 1, 1),                         # what a signed int of 32 bits holds
    ("base_lr", 1e-8, 100.0, 1e-9), ("momentum", 0.0, 0.9999, 1e-5), ("weight_decay", 0.0, 1.0, 1e-9),
    ("asymmnet_weight_decay", 0.0, 1.0, 1e-9), ("label_smoothing", 0.0, 0.9999, 1e-5), ("dropout", 0.0, 0.9999, 1e-5),
    ("rotation", 0.0, 180.0, 1e-9)])
def test_the_ends_of_every_range(field, least, most, step):
    def build(value):
        return Recipe("mine", **{"image_size": 64, "epochs": 10_000, field: value})

    for value in (least, most):
        assert getattr(build(value), field) == value
    for value in (least - step, most + step):
        with pytest.raises(ValueError, match=rf"recipe 'mine': (warmup_epochs \(|{field} is )"):
            build(value)


@pytest.mark.parametrize("field", ["test_share", "decay_bias_and_norm", "zero_last_gamma", "accelerate", "amp"])
def test_switches_are_true_or_false(field):
    with pytest.raises(ValueError, match=f"{field} is 1; it must be True or False"):
        Recipe("mine", image_size=64, epochs=1, **{field: 1})


def test_what_a_recipe_does_unless_told_otherwise():
    """The defaults decide what recorded runs did: a run.json older than a field is read with them, or with `BEFORE`."""
    recipe = Recipe("mine", image_size=64, epochs=10)
    assert recipe.as_dict() == {
        "name": "mine", "image_size": 64, "epochs": 10, "batch_size": 32, "base_lr": 0.01, "data": None,
        "test_share": False, "train_per_class": None, "optimizer": "momentum", "momentum": 0.9, "weight_decay": 1e-4,
        "asymmnet_weight_decay": None, "decay_bias_and_norm": True, "schedule": "cosine", "warmup_epochs": 0,
        "label_smoothing": 0.0, "dropout": 0.2, "zero_last_gamma": False, "normalisation": "measured",
        "augmentation": "rotate", "rotation": 10.0, "initialisation": "he", "norm": "common", "drop_last": False,
        "passes": 1, "frozen_epochs": 0, "backbone_rate": 1.0, "accelerate": True, "amp": False, "patience": None,
        "seed": 0}


def test_recorded_results_and_stored_notebooks_were_made_with_these_numbers():
    for name, numbers in (("quick", (40, 3, 32, 0.05)), ("laptop", (128, 30, 32, 0.05))):
        recipe = RECIPES[name]
        assert (recipe.image_size, recipe.epochs, recipe.batch_size, recipe.base_lr) == numbers
