"""asymmlib: AsymmNet in PaddlePaddle, with the data path and the training loop of the book around it.

Names are loaded on first use, so that `import asymmlib` needs no Paddle: `asymmlib.asymmnet_large(num_classes=16)`.
"""
from importlib import import_module

import PIL.Image  # noqa: F401 - before Paddle: 2.6 brings a zlib of its own, with which Pillow then fails or crashes

__version__ = "0.1.0"

# public name -> module that owns it
_OWNERS = {
    "AsymmNet": "network", "asymmnet_large": "network", "asymmnet_small": "network", "plan_blocks": "network",
    "MODELS": "models", "create_model": "models",
    "prepare": "data.sources", "make_manifest": "data.manifest",
    "Pictures": "dataset", "make_loader": "dataset",
    "Recipe": "recipes", "RECIPES": "recipes", "get_recipe": "recipes",
    "train": "training", "evaluate": "evaluation",
    "Classifier": "runs", "find_run": "runs", "load_pretrained": "runs",
    "count": "complexity",
    "save_weights": "weights.own", "load_weights": "weights.own",
    "load_official": "weights.official", "export_official": "weights.official",
    "accelerate": "fast",
    "export": "deploy.export",
}
__all__ = sorted(_OWNERS)


def __getattr__(name):
    if name not in _OWNERS:
        raise AttributeError(f"module 'asymmlib' has no attribute {name!r}")
    return getattr(import_module(f"asymmlib.{_OWNERS[name]}"), name)


def __dir__():
    return __all__
