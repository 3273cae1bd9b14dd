"""What `book/live.md` prints of recorded numbers: other pictures, heads from few pictures, time by operator.

Recorded by `python -m asymmbook unknown`, `heads`, `live-operators` and `live-webgpu`.
"""
from pathlib import Path

import pandas as pd

from asymmbook.checkout import results_dir
from asymmbook.evidence import heads as evidence
from asymmbook.evidence.inference import points
from asymmbook.evidence.unknown import DIGITS
from asymmbook.pages.int8 import LABELS
from asymmbook.pages.tables import bullets, markdown_table, percent
from asymmbook.pages.wasm import CONVOLUTION
from asymmlib.base.tables import read_table
from asymmlib.complexity import count
from asymmlib.models import MODELS, create_model
from asymmlib.weights.released import RELEASED, find_released

__all__ = ["heads", "none_of_these", "operators", "slower", "taught", "webgpu"]

SMALL = 0.01  # of the time: operators below it share a row


def _share(share, low, high):
    return f"{percent(share)} ({percent(low)}–{percent(high)})"


def none_of_these(folder: Path | None = None) -> str:
    """The table of thresholds and of both errors, a row a network, with 95 % intervals."""
    table, rows = read_table((folder or results_dir()) / "unknown.csv", ("network", "none_below", "auroc")), []
    for row in table.itertuples():
        away = _share(row.turned_away / row.turned_away_of, row.turned_away_low, row.turned_away_high)
        through = _share(row.let_through / row.let_through_of, row.let_through_low, row.let_through_high)
        rows.append({"network": LABELS[row.network], "others let through, %": through, "known turned away, %": away,
                     "right of all, %": percent(_right(row.network) / row.turned_away_of),
                     "right of those answered, %": percent(row.right_of_kept / (row.turned_away_of - row.turned_away)),
                     "area under the ROC curve": f"{row.auroc:.2f} ({row.auroc_low:.2f}–{row.auroc_high:.2f})",
                     "none below": f"{row.none_below:.{DIGITS}f}"})
    return markdown_table(pd.DataFrame(rows))


def _right(network):
    """How many of all test pictures it gets right, as its card says."""
    return find_released(network)[0]["accuracy"]["test"]["right"]


def heads(folder: Path | None = None) -> str:
    """The table of heads, a row a network, with 95 % intervals over draws."""
    rows = [{"features of": LABELS[row.network], "top-1, %": _share(row.accuracy, row.low, row.high),
             "weight decay": f"{row.decay:g}"} for row in _summary(folder).itertuples()]
    return markdown_table(pd.DataFrame(rows))


def _summary(folder):
    return evidence.summary(read_table((folder or results_dir()) / "heads.csv", ("network", "draw", "accuracy")))


def taught(folder: Path | None = None) -> str:
    """What the recorded heads say, in sentences."""
    items, classes = [], 5
    for row in _summary(folder).itertuples():
        if row.network == evidence.BASE:
            continue
        shown = row.more_low > 0 or row.more_high < 0
        items.append(f"A head on {LABELS[row.network]} against one on {LABELS[evidence.BASE]}: "
                     f"{points(row.more, row.more_low, row.more_high)}. "
                     + ("A difference is shown on these classes." if shown else
                        "No difference is shown on these classes."))
    items.append(f"Guessing gets {percent(1 / classes)} % right: what these networks have learned from a thousand "
                 "pictures of sixteen classes helps little with others.")
    return bullets(items)


def operators(folder: Path | None = None) -> str:
    """The table of where the time goes in WebAssembly: an operator a row, what takes under 1 % in all in one."""
    calls, ms = _profile(folder)
    share = ms.sum(axis=1) / ms.sum().sum()
    rows = [(_shown(name), calls.loc[name], ms.loc[name]) for name in share.index[share >= SMALL]]
    rest = share.index[share < SMALL]
    rows += [("others", calls.loc[rest].sum(), ms.loc[rest].sum())] if len(rest) else []
    rows.append(("together", calls.sum(), ms.sum()))
    return markdown_table(pd.DataFrame([
        {"operator": name, **{f"{LABELS[network]}, ms": f"{time[network]:.2f}" for network in ms.columns},
         "calls": " / ".join(f"{number[network]:.0f}" for network in ms.columns)} for name, number, time in rows]))


def _profile(folder):
    """(calls, ms) of a run, by operator and network, the dearest operator first."""
    table = read_table((folder or results_dir()) / "live-operators.csv", ("network", "operator", "ms", "calls"))
    networks = list(dict.fromkeys(table["network"]))
    calls, ms = (table.pivot(index="operator", columns="network", values=value).fillna(0)[networks]
                 for value in ("calls", "ms"))
    order = ms.sum(axis=1).sort_values(ascending=False).index
    return calls.loc[order], ms.loc[order]


def slower(folder: Path | None = None) -> str:
    """What the profile says of the two networks, in sentences."""
    table = read_table((folder or results_dir()) / "live-operators.csv", ("network", "image_size"))
    calls, ms = _profile(folder)
    (first, second), size = ms.columns, int(table["image_size"].iloc[0])
    macs = {name: count(create_model(name, 16, **RELEASED[name]), (1, 3, size, size)).macs for name in ms.columns}
    names = [LABELS[name] for name in (first, second)]
    conv, whole = ms[ms.index.str.contains(CONVOLUTION)].sum(), ms.sum()
    more = ms[first] - ms[second]
    items = [f"{names[0]} has {macs[first] / macs[second]:.2f} times the multiply-accumulates of {names[1]} and takes "
             f"{whole[first] / whole[second]:.2f} times as long, with {calls[first].sum():.0f} calls against "
             f"{calls[second].sum():.0f}.",
             f"Its convolutions take {conv[first] / conv[second]:.2f} times as long as those of {names[1]}.",
             f"The largest part of the difference is due to {_shown(more.idxmax())}: "
             f"{percent(more.max() / more.sum())} % of it." if more.max() < more.sum() else
             f"Without {_shown(more.idxmax())}, {names[0]} would take no longer than {names[1]}."]
    items += [f"What is no convolution takes {percent(1 - conv[name] / whole[name])} % of the time of {label}."
              for name, label in zip((first, second), names, strict=True)]
    return bullets(items)


def _shown(operator):
    """An operator's name: of ONNX as code, of a kind of convolution as words."""
    return operator if CONVOLUTION in operator else f"`{operator}`"


def webgpu(folder: Path | None = None) -> str:
    """The table of the networks by WebAssembly and by WebGPU on one graphics chip, and a sentence on their answers."""
    table = read_table((folder or results_dir()) / "live-webgpu.csv", ("network", "adapter", "wasm_ms", "webgpu_ms"))
    rows = [{"network": MODELS[row.network.split("-")[0]].label, "px": row.image_size,
             "WebAssembly, ms": f"{row.wasm_ms:.1f}", "WebGPU, ms": f"{row.webgpu_ms:.1f}"}
            for row in table.itertuples()]
    apart = table[["from_python", "logits_from_wasm"]].max().max()
    said = (f"On an {table['adapter'].iloc[0]}, {table['on_chip'].sum()} of {table['nodes'].sum()} nodes of the graphs "
            f"ran on the chip. No logit was more than {apart:.1g} away from those of WebAssembly and of Python; the "
            f"largest is {table['largest'].max():.1f}. These are the weights that the book had on "
            f"{table['date'].iloc[0]}.")
    return f"{markdown_table(pd.DataFrame(rows))}\n\n{said}"
