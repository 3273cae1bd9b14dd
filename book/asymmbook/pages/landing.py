"""What the book's first page shows: what was found, as Markdown, and the figure beside it."""
from pathlib import Path

from matplotlib.figure import Figure

from asymmbook.evidence.summary import summary
from asymmbook.evidence.which import accuracies
from asymmbook.figures.comparison import plot_accuracy

__all__ = ["found", "front"]


def found(folder: Path | None = None) -> str:
    """The findings as a Markdown list, each with a link to the page that shows it."""
    return "\n".join(f"- [**{head}.**]({page}) {text}" for head, text, page in summary(folder))


def front(folder: Path | None = None) -> Figure:
    """Accuracy against multiply-accumulate operations of the networks that were compared."""
    return plot_accuracy(accuracies(folder=folder))
