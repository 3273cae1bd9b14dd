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
    assert short.as_dict() == {**RECIPES["quick"].as_dict(), "name": "quick-heavy", "train_per_class": 12}
    assert all(shorten(recipe) is recipe for name, recipe in RECIPES.items() if name != "quick")
