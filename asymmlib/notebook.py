"""The first cell of every notebook: seed, figure style, and what the page runs on."""
import os
import platform
import random
from importlib.metadata import version

import numpy as np
import pandas as pd

from asymmlib.paths import data_choice
from asymmlib.recipes import get_recipe
from asymmlib.startup import load_paddle

__all__ = ["start"]


def start(seed=0):
    """Seed Python, NumPy and Paddle, set the figure style, and return a table of versions, device, data and recipe."""
    paddle = load_paddle()
    from asymmlib.style import use_style
    use_style()
    random.seed(seed)
    np.random.seed(seed)
    paddle.seed(seed)
    facts = {"Python": platform.python_version(), "Paddle": paddle.__version__, "NumPy": version("numpy"),
             "device": paddle.device.get_device(), "cores": os.cpu_count(),
             "threads": os.environ.get("OMP_NUM_THREADS", "not set"), "data": data_choice(),
             "recipe": get_recipe().name, "seed": seed}
    return pd.DataFrame({"value": facts})
