"""The first cell of every notebook: quiet known noise, seed, style, and say what the page runs on."""
import os
import platform
import random
import warnings
from importlib.metadata import version

import numpy as np
import pandas as pd

from asymmlib.paths import data_choice
from asymmlib.recipes import get_recipe

__all__ = ["start"]

# Warnings that concern nobody who reads or runs the book, by the beginning of their text
NOISE = ("No ccache found", "To copy construct from a tensor", "When training, we now always track global mean")


def start(seed=0):
    """Seed Python, NumPy and Paddle, set the figure style, and return a table of versions, device, data and recipe."""
    for message in NOISE:
        warnings.filterwarnings("ignore", message=message)
    import paddle  # after the filters: its import is where the first warning comes from

    from asymmlib.figures import use_style
    use_style()
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)
    facts = {"Python": platform.python_version(), "Paddle": paddle.__version__, "NumPy": version("numpy"),
             "device": paddle.device.get_device(), "cores": os.cpu_count(),
             "threads": os.environ.get("OMP_NUM_THREADS", "not set"), "data": data_choice(),
             "recipe": get_recipe().name, "seed": seed}
    return pd.DataFrame({"value": facts})
