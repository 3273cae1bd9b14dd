"""What `book/int8.md` shows of integers of 8 bits, as Markdown and tables, out of results/int8*.csv and the weights.

Recorded by `python -m asymmbook int8`, times by the same with `--latency`.
"""
import itertools
from pathlib import Path

import pandas as pd

from asymmbook.checkout import results_dir
from asymmbook.evidence.int8 import CLEARED, SCRATCH
from asymmbook.evidence.int8_layers import still
from asymmbook.pages.tables import bullets, markdown_table, percent
from asymmlib.base.tables import read_table
from asymmlib.models import MODELS
from asymmlib.weights.released import RELEASED

__all__ = ["CLEARABLE", "LABELS", "RUINED", "cleared", "cost", "latency", "layers", "ruined", "still_channels",
           "summary"]

LABELS = {name: MODELS[name].label for name in RELEASED} | {SCRATCH: "MobileNetV2 from scratch"}
NETWORK_FORM = ["network", "form"]
SHOWN = ("float32", "float16", "int8", "OpenVINO int8")
ONE_STEP = "int8, one step a layer"
RUINED = ("asymmnet_large", "mobilenet_v2", SCRATCH)  # what one step a layer is told of
CLEARABLE = RUINED[1:]  # those with still channels


def _read(name, folder, columns=NETWORK_FORM, **absent):
    return read_table((folder or results_dir()) / f"{name}.csv", columns, **absent)


def _table(folder=None):
    """The recorded rows by (network, form)."""
    return _read("int8", folder).set_index(NETWORK_FORM)


def _times(folder):
    """The recorded times by (network, form); empty where there are none."""
    return _read("int8-latency", folder, absent=pd.DataFrame(columns=NETWORK_FORM)).set_index(NETWORK_FORM)


def summary(folder: Path | None = None) -> str:
    """The table of every network and form: bytes, accuracy with its interval, and time of one picture where recorded.
    """
    table, times, rows = _table(folder), _times(folder), []
    for network, form in itertools.product(RELEASED, SHOWN):
        row = table.loc[(network, form)]
        cells = {"network": LABELS[network], "numbers": form, "MB": f"{row['bytes'] / 1e6:.2f}",
                 "test pictures right": f"{row['right']} of {row['pictures']}",
                 "top-1, %": f"{percent(row['right'] / row['pictures'])} ({percent(row['low'])}–"
                             f"{percent(row['high'])})"}
        if (network, form) in times.index:
            time = times.loc[(network, form)]
            cells["ms a picture"] = f"{time['ms']:.2f} ({time['ms_low']:.2f}–{time['ms_high']:.2f})"
        rows.append(cells)
    return markdown_table(pd.DataFrame(rows))


def cost(folder: Path | None = None) -> str:
    """What int8 saves and costs, a sentence a network."""
    table, items = _table(folder), []
    for network in RELEASED:
        row, whole = table.loc[(network, "int8")], table.loc[(network, "float32")]
        more = row["right"] - whole["right"]
        points = f"{100 * abs(more) / row['pictures']:.1f} points"
        change = "none" if more == 0 else f"{points} {'fewer' if more < 0 else 'more'}"
        items.append(f"{LABELS[network]}: {whole['bytes'] / row['bytes']:.1f} times smaller. Answers that became "
                     f"wrong: {row['lost']}, that became right: {row['gained']}, difference: {change}. "
                     + ("Chance alone does not explain this." if row["p"] < 0.05 else
                        "Chance alone would explain this."))
    return bullets(items)


def latency(folder: Path | None = None) -> str:
    """What the recorded times say, or that there are none."""
    times, items = _times(folder), []
    if times.empty:
        return "Times are not recorded yet: they need a machine that does nothing else."
    for network in times.index.unique("network"):
        for engine, form, base in (("ONNX Runtime", "int8", "float32"),
                                   ("OpenVINO", "OpenVINO int8", "OpenVINO float32")):
            small, whole = times.loc[(network, form)], times.loc[(network, base)]
            ratio = whole["ms"] / small["ms"]
            apart = small["ms_high"] < whole["ms_low"] or small["ms_low"] > whole["ms_high"]
            items.append(f"{LABELS[network]} in {engine}: int8 takes {small['ms']:.2f} ms, float32 {whole['ms']:.2f} "
                         "ms. " + (f"Int8 is {max(ratio, 1 / ratio):.1f} times {'faster' if ratio > 1 else 'slower'}."
                                   if apart else "Their turns overlap: no difference is shown."))
    first = times.iloc[0]
    return bullets(items) + (f"\n\nOne picture of {first['image_size']} × {first['image_size']} pixels at a time on "
                             f"{first['cpu']}, {first['threads']} threads.")


def layers(folder: Path | None = None) -> dict[str, pd.DataFrame]:
    """{network: rows of `asymmbook.evidence.int8_layers.layer_by_layer`}, recorded."""
    table = _read("int8-layers", folder, ("network", "layer"))
    return {LABELS[network]: part for network, part in table.groupby("network")}


def ruined(network: str, folder: Path | None = None) -> str:
    """How a network fares with one step a layer, and which of its layers alone do the damage."""
    row, whole = (_table(folder).loc[(network, form)] for form in (ONE_STEP, "float32"))
    alone = layers(folder)[LABELS[network]].sort_values("right")
    bad = alone[alone["right"] < whole["right"] - 0.1 * whole["pictures"]]
    text = (f"With one step a layer, {LABELS[network]} gets {row['right']} of {row['pictures']} test pictures right, "
            f"with float32 {whole['right']}. ")
    if bad.empty:
        return text + f"Lowest count with one layer alone in 8 bits: {alone['right'].min()}."
    depthwise, rest = (bad["kind"] == "depthwise").all(), alone[~alone["layer"].isin(bad["layer"])]["right"].min()
    kinds = f"{len(bad)} do that alone, {'all depthwise' if depthwise else 'not only depthwise ones'}"
    if len(bad) == 1:
        kinds = f"one does that alone, {'a' if depthwise else 'not a'} depthwise one"
    return text + f"Of its {len(alone)} convolutions {kinds}: {_each(bad)}. Any other one leaves at least {rest}."


def _each(bad):
    return ", ".join(f"`{row['layer']}` leaves {row['right']}" for _, row in bad.iterrows())


def still_channels(ranges: pd.DataFrame) -> str:
    """The channels to which nothing arrives, as a table: what they do to the step of their layer."""
    rows = []
    for _, row in still(ranges).iterrows():
        layer = ranges[ranges["layer"] == row["layer"]]
        alive = layer[~layer.index.isin(still(layer).index)]
        rows.append({"layer": f"`{row['layer']}`", "channel": row["channel"], "variance": f"{row['variance']:.0e}",
                     "largest weight": f"{row['range']:.0f}", "median of the others": f"{alive['range'].median():.2f}",
                     "others left with nothing": f"{(alive['steps'] <= 1 / 2).sum()} of {len(alive)}"})
    return markdown_table(pd.DataFrame(rows)) if rows else "This network has no such channel."


def cleared(network: str, folder: Path | None = None) -> str:
    """What becomes of a network with one step a layer when its still channels are set to 0 first."""
    table = _table(folder)
    row, before, whole = (table.loc[(network, form)] for form in (CLEARED, ONE_STEP, "float32"))
    healed = whole["right"] - row["right"] <= 0.03 * whole["pictures"]
    return (f"With these weights at 0 and one step a layer, {LABELS[network]} gets {row['right']} of {row['pictures']} "
            f"test pictures right; it was {before['right']}, and {whole['right']} in float32. "
            + ("The still channels were the whole cause." if healed else "They were a part of the cause."))
