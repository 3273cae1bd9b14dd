"""How to install what only some need."""
from asymmlib.base.folders import checkout

__all__ = ["extra"]


def extra(name):
    """The sentence that says how to install an extra: from the checkout at the pinned versions, else from the index."""
    where = "-c constraints.txt -e '.[{}]' in the checkout" if checkout() else "'asymmlib[{}]'"
    return f"it is in the extra `{name}`: pip install {where.format(name)}"
