"""Bring results/bench.csv of before November 2026 into today's columns: `python benchmarks/migrate.py`, once.

Nothing is invented. A baseline by Paddle's own kernels becomes the case "stock" of its own network, over which its
ratio is 1; what was not recorded (rounds, disturbed, ranges of ratios, kernels) stays empty, and so do ratios of rows
whose stock took its turns in other rounds.
"""
import pandas as pd

from asymmbook.checkout import results_dir
from asymmbook.evidence.speeds import ASYMMNET, BOOK, ORDER, STOCK

BASELINES = ("mobilenet_v2", "mobilenet_v3_large")

path = results_dir() / "bench.csv"
table = pd.read_csv(path, dtype={"commit": str})
if "network" in table:
    raise SystemExit(f"{path} is in today's columns already")
baseline, book = table["case"].isin(BASELINES), table["case"] == BOOK
table["network"] = table["case"].where(baseline, ASYMMNET).mask(book)
table.loc[baseline, "case"] = STOCK
table.loc[baseline, ["ratio_to_stock", "memory_to_stock"]] = 1
other_rounds = (table["batch"] != 32) | (table["width"] != 1)
table.loc[other_rounds, ["ratio_to_stock", "memory_to_stock"]] = None
table.reindex(columns=ORDER).to_csv(path, index=False, float_format="%.5g", lineterminator="\n")
