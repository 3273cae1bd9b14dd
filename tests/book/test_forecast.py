"""What the notebooks say of a training before they begin it: asymmbook.pages.forecast."""
import pytest

from asymmbook.pages import forecast
from asymmlib.recipes import get_recipe
from asymmlib.training import train

QUICK = get_recipe("quick")


def test_the_setting_picks_baselines(monkeypatch):
    monkeypatch.delenv("ASYMMLIB_BASELINES", raising=False)
    assert forecast.baselines() == forecast.BASELINES
    monkeypatch.setenv("ASYMMLIB_BASELINES", "mobilenet_v2, resnet50")
    assert forecast.baselines() == ("resnet50", "mobilenet_v2")
    monkeypatch.setenv("ASYMMLIB_BASELINES", "vgg19")
    assert forecast.baselines() == ("vgg19",) and forecast.baselines(["mobilenet_v2"]) == ()


@pytest.mark.parametrize("wrong", ["resnet18", "asymmnet_large", "vgg19, MobileNetV2"])
def test_what_is_no_baseline_is_refused_by_name(monkeypatch, wrong):
    monkeypatch.setenv("ASYMMLIB_BASELINES", wrong)
    with pytest.raises(ValueError, match=rf"{wrong.split()[-1]}' is no baseline; accepted are resnet50, vgg19, mobi"):
        forecast.baselines()


def test_hours_of_the_articles_recipe(monkeypatch, home, sample):
    """Three networks, 100 epochs: 768 pictures to train on, and 192 that cost a third."""
    monkeypatch.setattr(forecast, "pace", lambda name, recipe, classes: {"resnet50": 0.5, "vgg19": 1.5}.get(name, 0.2))
    table = forecast.forecast(dict.fromkeys(forecast.BASELINES, get_recipe("article-fixed")), sample)
    assert list(table.index) == ["ResNet50", "VGG19", "MobileNetV2"]
    assert table.iloc[:, 1:4].to_numpy().tolist() == [[256, 768, 100]] * 3
    assert list(table["hours here, about"]) == ["11.6", "34.7", "4.6"]
    assert "3 of 3 networks will be trained, which takes about 50.8 hours" in forecast.sentence(table)


@pytest.mark.slow
def test_what_is_finished_takes_no_time(home, sample, monkeypatch):
    recipe = QUICK.replace(name="tiny", train_per_class=2, epochs=2)
    train("mobilenet_v2", recipe, prepared=sample)
    monkeypatch.setattr(forecast, "pace", lambda *_: pytest.fail("a network is built that is not trained"))
    table = forecast.forecast({"mobilenet_v2": recipe}, sample)
    assert table.iloc[0].tolist() == ["tiny", 40, 32, 0, "0.0"]
    assert "nothing is trained" in forecast.sentence(table)


@pytest.mark.slow
def test_a_step_is_timed():
    """A larger picture takes longer, and the forecast is not off by orders of magnitude."""
    small, large = (forecast.pace("mobilenet_v2", QUICK.replace(image_size=size), 16) for size in (32, 160))
    assert 1e-5 < small < large < 60
