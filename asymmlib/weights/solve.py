"""Which AsymmNet the shapes of some arrays are of: variant, width and rate are solved for, not looked up in a list.

A channel count is width × base, rounded up to a multiple of 8: each tells an interval that the width lies in, and their
intersection is narrow, as the head counts by 960. Each width in it gives the same network; the roundest is taken.
"""
from collections.abc import Mapping
from fractions import Fraction
from math import floor
from typing import Any

from asymmlib.network import ROWS, SQUEEZE, STEM_CHANNELS, BlockPlan, plan_blocks

__all__ = ["solve"]

Shapes = Mapping[str, tuple[int, ...]]
STEPS = (1, 2, 4, 10, 20, 100, 1000, 10**4, 10**5, 10**6)  # widths in halves, quarters, tenths ... are tried in turn
STEP = 8  # channel counts are multiples of it


def solve(shapes: Shapes, port: str = "pytorch") -> dict[str, Any]:
    """variant, width, asymmrate and port of the network with arrays of these shapes: {our name: shape}.

    Raises `ValueError` that names what is missing, or what no AsymmNet has.
    """
    blocks = sum(f"blocks.{index}.depthwise.conv.weight" in shapes for index in range(max(map(len, ROWS.values()))))
    variant = next((name for name, rows in ROWS.items() if len(rows) == blocks), None)
    if variant is None:
        raise ValueError(f"it has {blocks} blocks; AsymmNet-Large has {len(ROWS['large'])}, Small {len(ROWS['small'])}")
    bounds, rate = _widths_and_rate(shapes, variant)
    low, high = max(low for low, _ in bounds.values()), min(high for _, high in bounds.values())
    tried = []
    for width in _numbers(low, high):
        settings = {"variant": variant, "width": width, "asymmrate": rate, "port": port}
        try:
            plans = plan_blocks(**settings)
        except ValueError as error:
            tried.append(str(error))
            continue
        wrong = [name for name, shape in _expected(plans).items() if shapes.get(name) != shape]
        if not wrong:
            return settings
        tried.append(f"{wrong[0]} has shape {list(shapes.get(wrong[0], ()))}, which does not go with the others")
    narrow = max(bounds, key=lambda name: bounds[name][0])
    raise ValueError(tried[0] if tried else f"the channels of its layers are of no one width: {narrow} alone asks for "
                                            f"more than {float(low):g}, another for at most {float(high):g}")


def _widths_and_rate(shapes, variant):
    """({our name: (width above, width up to)}, asymmetry rate)."""
    bounds = {"stem.conv.weight": _interval(_first(shapes, "stem.conv.weight"), STEM_CHANNELS),
              "head.conv.weight": _interval(_first(shapes, "head.conv.weight"), SQUEEZE[variant])}
    c_in, rate = _first(shapes, "stem.conv.weight"), None
    for index, row in enumerate(ROWS[variant]):
        depthwise, out = (_first(shapes, f"blocks.{index}.{part}.conv.weight") for part in ("depthwise", "project"))
        expand = f"blocks.{index}.expand.conv.weight"
        expansion = depthwise
        if expand in shapes:
            rate, rest = divmod(depthwise - _first(shapes, expand), 2 * c_in)
            expansion = depthwise - rate * c_in
            if rest or rate < 0:
                raise ValueError(f"{expand} has {_first(shapes, expand)} channels, which with {c_in} that come in and "
                                 f"{depthwise} that go on are of no asymmetry rate")
        bounds[f"blocks.{index}.depthwise.conv.weight"] = _interval(expansion, row.expansion)
        bounds[f"blocks.{index}.project.conv.weight"] = _interval(out, row.out)
        c_in = out
    return bounds, rate or 0


def _first(shapes, name):
    if name not in shapes:
        raise ValueError(f"it has no {name}")
    return shapes[name][0] if shapes[name] else 0


def _interval(channels, base):
    return Fraction(channels - STEP, base), Fraction(channels, base)


def _numbers(low, high):
    """Widths above `low` and up to `high`, the roundest first."""
    for step in STEPS:
        top = floor(high * step)
        for number in range(top, max(floor(low * step), top - 10, 0), -1):
            yield number / step


def _expected(plans: tuple[BlockPlan, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes by which networks differ: of depthwise and second pointwise convolutions."""
    return {f"blocks.{plan.index}.{part}.conv.weight": shape for plan in plans for part, shape in (
        ("depthwise", (plan.depthwise, 1, plan.kernel, plan.kernel)), ("project", (plan.out, plan.depthwise, 1, 1)))}
