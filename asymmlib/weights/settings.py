"""Settings in the metadata of every safetensors file that we write: what network it is of, and of which pictures.

JSON under `SETTINGS`: variant, width, asymmrate and port of an AsymmNet (of another network, or of one whose blocks
were replaced, its class, and the epsilon of its batch norms), classes (their names, or how many), and size, mean and
std of the pictures, null where nobody said them. They are checked on loading.
"""
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paddle import nn

from asymmlib.network import AsymmNet, BlockPlan, plan_blocks

__all__ = ["NETWORK", "PICTURES", "SETTINGS", "check_network", "complete", "marks", "plans_of", "read_settings",
           "same_network", "shown"]

SETTINGS = "settings"
NETWORK = ("variant", "width", "asymmrate", "port")
PICTURES = ("classes", "size", "mean", "std")


def marks(pictures: Mapping[str, Any]) -> dict[str, str]:
    """Metadata for `save_weights`: what is known of a network's pictures, of "classes", "size", "mean" and "std"."""
    return {SETTINGS: json.dumps({key: pictures.get(key) for key in PICTURES}, ensure_ascii=False)}


def complete(network: nn.Layer, metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Metadata with the settings of a network before what is said there of its pictures."""
    known = {key: None for key in PICTURES} | json.loads((metadata or {}).get(SETTINGS, "{}"))
    last = [layer for layer in network.sublayers(include_self=True) if isinstance(layer, nn.Linear)]
    known["classes"] = known["classes"] or (last[-1].weight.shape[1] if last else None)
    return {**(metadata or {}), SETTINGS: json.dumps({**_described(network), **known}, ensure_ascii=False)}


def _described(network):
    """What a file says of a network: its settings, if it is an AsymmNet with their blocks, else a name and epsilon."""
    name = type(network).__name__
    if isinstance(network, AsymmNet):
        own = {key: getattr(network, key) for key in NETWORK}
        if same_network(own, network):
            return own
        name += " with other blocks"
    return {"network": name, "epsilon": _epsilon(network)}


def _epsilon(network):
    """That of a network's batch norms, which no weight tells; None without any, or where they differ."""
    found = {layer._epsilon for layer in network.sublayers() if isinstance(layer, nn.BatchNorm2D)}
    return found.pop() if len(found) == 1 else None


def read_settings(metadata: Mapping[str, str], source: Path | str) -> dict[str, Any]:
    """The settings in a safetensors file's metadata, {} where there are none. Raises `ValueError` for odd ones."""
    try:
        settings = dict(json.loads(metadata.get(SETTINGS, "{}")))
        if "variant" in settings:
            plan_blocks(*(settings[key] for key in NETWORK))
        classes = settings.get("classes")
        if not (classes is None or isinstance(classes, int) or all(isinstance(name, str) for name in classes)):
            raise ValueError("classes are names, or a number of them")
        return settings
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{source}: its settings are damaged ({type(error).__name__}: {error}); take a copy, or train "
                         "or convert anew") from error


def shown(settings: Mapping[str, Any]) -> str:
    """Settings in words: "AsymmNet-Large, width 0.5, asymmrate 1"; the Gluon port is named, the other is usual."""
    return (f"AsymmNet-{settings['variant'].title()}, width {settings['width']:g}, asymmrate {settings['asymmrate']}"
            + (", Gluon's port" if settings.get("port") == "gluon" else ""))


def plans_of(settings: Mapping[str, Any]) -> tuple[BlockPlan, ...] | None:
    """The blocks of these settings, None where none can be built."""
    try:
        return plan_blocks(*(settings[key] for key in NETWORK))
    except ValueError:
        return None


def same_network(settings: Mapping[str, Any], network: AsymmNet) -> bool:
    """Whether a network has the blocks of these settings: other widths may, and often the other port."""
    return plans_of(settings) == tuple(block.plan for block in network.blocks)


def check_network(network: nn.Layer, settings: Mapping[str, Any], source: Path | str) -> None:
    """Raise `ValueError` where a file's settings are of another network than this one, whatever the shapes say."""
    own = _described(network)
    name = own.get("network", type(network).__name__)
    if "variant" in own and "variant" in settings:
        if not same_network(settings, network):
            raise ValueError(f"{source} is of {shown(settings)}, and this network is {shown(own)}: "
                             + _remedy(settings, own))
    elif "variant" in settings or settings.get("network", name) != name:
        theirs = settings.get("network") or shown(settings)
        raise ValueError(f"{source} is of {theirs}, and this network is {name}")


def _remedy(settings, own):
    """What to do about another network: build that one, or take the arrays as those of the other port."""
    if {**settings, "port": own["port"]} == {**settings, **own}:
        return ("the arrays have the same shapes, but the first block computes something else. Build it with "
                f"port={settings['port']!r}, or convert the file with --port {own['port']} to train on from it")
    return (f"on the command line, --model asymmnet_{settings['variant']} --width {settings['width']:g} --asymmrate "
            f"{settings['asymmrate']}")
