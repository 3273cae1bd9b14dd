"""What the explorer page needs from the library: the rows of the networks, and the colours of the drawings.

The page's script, `book/static/explorer/costs.js`, holds the rules of `plan_blocks` and `formula` once more, since a
page without a server cannot ask Python. It holds no row and no constant of its own: they come from here.
`tests/book/test_explorer.py` compares the two on random settings.
"""
import json
from typing import Any

from asymmbook.figures.diagrams import COPY, NEW, PART_COLOURS
from asymmlib.network import FEATURES, ROWS, SQUEEZE, STEM_CHANNELS

__all__ = ["CLASSES", "embed", "facts"]

CLASSES = 1000  # of ImageNet, as in the paper's tables
MOBILENET_HIDDEN = {"large": 1280, "small": 1024}  # last_channel of Paddle's MobileNetV3 at scale 1.0


def facts() -> dict[str, Any]:
    """Return everything that the script takes from Python, as a mapping that JSON can hold."""
    return {"rows": {variant: [row._asdict() for row in rows] for variant, rows in ROWS.items()},
            "squeeze": SQUEEZE, "stem": STEM_CHANNELS, "features": FEATURES, "classes": CLASSES,
            "hidden": MOBILENET_HIDDEN,
            "colours": {"copy": COPY, "new": NEW, "parts": list(PART_COLOURS.values())}}


def embed() -> str:
    """Return `facts` as an HTML element that the script finds by its id."""
    return f'<script type="application/json" id="explorer-facts">{json.dumps(facts())}</script>'
