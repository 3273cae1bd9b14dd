"""What the asymmetry rate changes, measured: channels, paths from input to output, and the recorded runs by rate.

Notebook 7 shows it. Costs come from `asymmlib.complexity`, drawings from `asymmlib.figures`.
"""
import json

import paddle
import pandas as pd

from asymmlib.evidence import recorded
from asymmlib.network import plan_blocks
from asymmlib.results import read_results

__all__ = ["channel_table", "reached_channels", "recorded_curves", "recorded_rates"]

MODEL = "asymmnet_large"  # the network that the comparison has at several rates


def channel_table(rates=(0, 1, 2), variant="large"):
    """Channels in every block at several rates: columns (rate, part) with parts new, copied and filtered."""
    parts = {(rate, part): [value(plan) for plan in plan_blocks(variant, asymmrate=rate)] for rate in rates
             for part, value in (("new", lambda plan: plan.new), ("copied", lambda plan: 2 * plan.copies * plan.c_in),
                                 ("filtered", lambda plan: plan.depthwise))}
    table = pd.DataFrame(parts)
    return table.rename_axis(index="block", columns=["r", "channels"])


def reached_channels(block, size=8):
    """Which filtered channels depend on which input channels of an `AsymmetricalBottleneck`: bool `[c_in, depthwise]`.

    Found by changing one input channel at a time and looking at what enters the depthwise convolution. The block is
    in eval mode afterwards, in which batch norm mixes no channels.
    """
    block.eval()
    seen = []
    handle = block.depthwise.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    try:
        with paddle.no_grad():
            x = paddle.ones([1, block.plan.c_in, size, size])
            block(x)
            for channel in range(block.plan.c_in):
                changed = x.clone()
                changed[:, channel] += 1e4  # so large that no ReLU hides it in all pictures
                block(changed)
                changed[:, channel] -= 2e4
                block(changed)
    finally:
        handle.remove()
    base, *others = (value.numpy()[0] for value in seen)
    differs = [(other != base).any(axis=(1, 2)) for other in others]
    return pd.DataFrame([up | down for up, down in zip(differs[::2], differs[1::2], strict=True)]).to_numpy()


def recorded_rates(rates=(0, 1, 2), folder=None):
    """Recorded runs of AsymmNet-Large in the comparison at several rates: `evidence.recorded` with a column asymmrate.

    Raises `ValueError` where they saw different pictures.
    """
    runs = recorded("compare", folder)
    if runs.empty:
        return pd.DataFrame({name: [] for name in ("run", "asymmrate", "seed", "last_eval_top1")})
    chosen = runs[runs["model"] == MODEL]
    chosen = chosen.assign(asymmrate=[json.loads(text)["asymmrate"] for text in chosen["settings"]])
    if chosen["manifest_sha256"].nunique() > 1:
        raise ValueError("the recorded runs to compare saw different pictures; record them anew with one manifest: "
                         + ", ".join(chosen["run"]))
    return chosen[chosen["asymmrate"].isin(rates)]


def recorded_curves(rates=(0, 1, 2), folder=None):
    """The curves of `recorded_rates`, one row per run and epoch, with the columns asymmrate and seed."""
    runs, curves = recorded_rates(rates, folder).set_index("run"), read_results(folder)["curves"]
    if runs.empty:
        return pd.DataFrame({name: [] for name in ("run", "asymmrate", "seed", "epoch", "eval_top1")})
    curves = curves[curves["run"].isin(runs.index)]
    return curves.assign(asymmrate=curves["run"].map(runs["asymmrate"]), seed=curves["run"].map(runs["seed"]))
