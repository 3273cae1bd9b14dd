"""Any trained network by one name: what `--from` means, for every command that uses weights, and `--start` of `train`.

- a name below runs/, or the path of a run's folder: the run's, after its last epoch unless another one is asked for
- `asymmnet_large`, `asymmnet_small`, `mobilenet_v2`: the one that comes with the book
- a `.safetensors` file of ours: beside the record of its run, or its card, that network; else by its own settings
- any other file that `convert` reads: that network; its pictures as ImageNet's, where it has a thousand classes
"""
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asymmlib.base.files import checksum
from asymmlib.runs import LICENCE, Classifier, find_run, known_runs, load_pretrained, recorded_folder
from asymmlib.weights.released import RELEASED, best_available, find_released

__all__ = ["EPOCH", "EPOCHS", "find_weights", "open_classifier"]

EPOCHS = ("last", "best")
EPOCH = EPOCHS[0]  # for every command: nothing was chosen by looking at the eval split
# What networks trained on ImageNet were given, where a file of a thousand classes says nothing (torchvision, the
# authors' own code); they crop the middle, and here a picture is squashed
IMAGENET = {"size": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
IMAGENET_CLASSES = 1000
# class of a network, as a file's settings name it -> key of `asymmlib.models.MODELS`; AsymmNet says its variant
MODEL_OF = {"MobileNetV2": "mobilenet_v2", "MobileNetV3Large": "mobilenet_v3_large", "ResNet": "resnet50",
            "VGG": "vgg19"}
UNKNOWN = "not known: whatever the source of the file says"  # of what this library did not train


def open_classifier(source: Path | str | None = None, epoch: str | None = None) -> Classifier:
    """The `Classifier` that a name means, by the table above; without one, the first released network that is here.

    epoch: "last" (the default) or "best" by the eval split, of a run alone. Raises `FileNotFoundError` where nothing is
    called so, listing what is there; `ValueError` for a name of two things, an epoch of what is no run, and a file that
    does not say how its pictures are prepared; whatever reading the weights raises.
    """
    if source is None:
        return _no_epoch(load_pretrained(best_available()), epoch)
    path, (run, released) = Path(source), _called(source)
    if run:
        return find_run(run).classifier(epoch or EPOCH)
    if released:
        return _no_epoch(load_pretrained(str(source)), epoch)
    if path.is_file() and (path.parent / "run.json").is_file() and path.stem in EPOCHS:
        if epoch not in (None, path.stem):
            raise ValueError(f"{path} are the {path.stem} weights of a run, and --weights asks for the {epoch} ones: "
                             f"leave one away, or give the run, {path.parent}")
        return find_run(path.parent).classifier(path.stem)
    if path.is_file() and path.stem in RELEASED and path.with_suffix(".json").is_file():
        return _no_epoch(load_pretrained(path.stem, path.parent), epoch)
    if path.exists() and not path.is_dir():
        return _no_epoch(_of_file(path), epoch)
    raise FileNotFoundError(_nothing(source))


def find_weights(source: Path | str) -> Path:
    """The file with the weights that a training starts from: a run's after its last epoch, a released network's, or the
    file itself. Raises as `open_classifier`; a file is not opened.
    """
    run, released = _called(source)
    return find_run(run).weights(EPOCH) if run else find_released(str(source))[1] if released else Path(source)


def _called(source):
    """(folder of the run of this name or None, whether a released network is called so); `ValueError` where both are.
    """
    run, released = recorded_folder(source), str(source) in RELEASED
    if run and released:
        raise ValueError(f"{source} is a run of yours and the name of a released network: give the run as {run}, the "
                         f"network as the path of its file, {source}.safetensors")
    return run, released


def _no_epoch(classifier, epoch):
    if epoch is not None:
        raise ValueError(f"{classifier.name} is no run, so there is no {epoch} epoch to choose: leave --weights away")
    return classifier


def _nothing(source):
    folder = " is a folder without a run.json:" if Path(source).is_dir() else ":"
    return (f"{source}{folder} no run, no released network and no file of weights is called so. Runs: "
            f"{', '.join(known_runs()) or 'none'}; released: {', '.join(RELEASED)}; files: .safetensors of ours, and "
            "what convert reads")


def _of_file(path: Path) -> Classifier:
    """A `Classifier` by what a file says of itself."""
    from asymmlib.weights.contents import read_contents
    from asymmlib.weights.settings import read_settings
    metadata = read_contents(path).metadata
    about = read_settings(metadata, path)
    network, model = (_other_network if "network" in about else _asymmnet)(path, about)
    network.eval()
    pictures, classes = _pictures(path, about, _number_of_classes(network))
    return Classifier(path.stem, model, network, classes, pictures["size"], tuple(pictures["mean"]),
                      tuple(pictures["std"]), LICENCE if metadata.get("run") else UNKNOWN,
                      {"file": path.name, "sha256": checksum(path)})


def _number_of_classes(network):
    from paddle import nn
    return [layer for layer in network.sublayers() if isinstance(layer, nn.Linear)][-1].weight.shape[1]


def _asymmnet(path, about):
    """(network, key of its model) of any file that holds an AsymmNet."""
    from asymmlib.weights.convert import read_network
    try:
        network, _ = read_network(path)
    except ValueError as error:
        way = f". Here: python -m asymmlib convert {path} OUT.safetensors --key ..., then --from OUT.safetensors"
        raise ValueError(f"{error}{way}" if "--key" in str(error) else error) from error
    return network, f"asymmnet_{network.variant}"


def _other_network(path, about):
    """(network, key of its model) of a file of ours that holds another network than AsymmNet."""
    from paddle import nn

    from asymmlib.models import create_model
    from asymmlib.weights.own import load_weights
    if about["network"] not in MODEL_OF:
        raise ValueError(f"{path} is of {about['network']}; known: AsymmNet, {', '.join(MODEL_OF)}")
    model, classes = MODEL_OF[about["network"]], about.get("classes")
    if not classes:
        raise ValueError(f"{path}: its settings say no classes; take a copy, or train anew")
    network = create_model(model, classes if isinstance(classes, int) else len(classes))
    for layer in network.sublayers():
        if isinstance(layer, nn.BatchNorm2D) and isinstance(about.get("epsilon"), float):
            layer._epsilon = about["epsilon"]  # no weight, yet part of what the network computes
    load_weights(network, path)
    return network, model


def _pictures(path: Path, about: Mapping[str, Any], count: int) -> tuple[dict[str, Any], tuple[str, ...]]:
    """({size, mean, std}, names of the classes) of a file, by what it says; else as ImageNet's, which is told."""
    names = about.get("classes")
    classes = tuple(names) if isinstance(names, list) else tuple(f"class {number}" for number in range(count))
    said = {key: about.get(key) for key in IMAGENET}
    odd = [key for key, value in said.items() if value is not None and not _usable(key, value)]
    if odd or len(classes) != count:
        raise ValueError(f"{path}: its settings are damaged, no usable {', '.join(odd) or 'classes'}; take a copy, or "
                         "train or convert anew")
    if all(value is not None for value in said.values()):
        return said, classes
    if count == IMAGENET_CLASSES:
        print(f"{path} says nothing of its pictures and has {count} classes: they are prepared as ImageNet's usually "
              f"are, {IMAGENET['size']} pixels, mean {IMAGENET['mean']}, std {IMAGENET['std']}, but squashed, not "
              "cropped", file=sys.stderr)
        return {key: value if value is not None else IMAGENET[key] for key, value in said.items()}, classes
    missing = ", ".join(key for key, value in said.items() if value is None)
    raise ValueError(f"{path} does not say how its pictures are prepared (no {missing}), and a guess would give wrong "
                     f"answers without a sign: python -m asymmlib convert {path} OUT.safetensors --size N --mean R G B "
                     "--std R G B --labels FILE writes it into a file, then --from OUT.safetensors")


def _usable(key, value):
    """Whether a value is what pictures can have: a size of at least 32 pixels, three numbers, deviations above 0."""
    if key == "size":
        return isinstance(value, int) and not isinstance(value, bool) and value >= 32
    return isinstance(value, list) and len(value) == 3 and all(
        isinstance(number, int | float) and abs(number) < 1e4 and (number > 0 or key == "mean") for number in value)
