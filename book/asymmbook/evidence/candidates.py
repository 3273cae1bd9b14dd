"""What the recorded runs say about the recipes that were tried for the released weights, and what each cost."""
from pathlib import Path
from typing import Any

import pandas as pd

from asymmbook.evidence import records
from asymmbook.evidence.shipping import CANDIDATES, NETWORKS, candidate_run, cost, source_run
from asymmbook.evidence.trial import BASE
from asymmbook.evidence.verdicts import LABELS

__all__ = ["shown", "tried"]

OPEN = "open"
OWN_COLUMNS = ("augmentation", "epochs")  # fields of a recipe


def tried(folder: Path | None = None) -> pd.DataFrame:
    """A row a candidate and network: top1, trained (`cost`, in pictures) and minutes; the last three None where open.

    Minutes are those of the recorded runs, the whole pre-training included, on one thread beside another run.
    """
    runs = records.read_runs(folder)
    known = {row.run: row for row in runs.itertuples()} if len(runs) else {}
    rows = []
    for name, candidate in CANDIDATES.items():
        for network in NETWORKS:
            names = [candidate_run(network, name)]
            names += [source_run(network, "next16")] if candidate.pretrained else []
            row: dict[str, Any] = dict.fromkeys(("top1", "trained", "minutes"))
            row |= {"candidate": name, "network": network}
            if all(name in known for name in names):
                run, *sources = (known[name] for name in names)
                row |= {"top1": run.top1, "minutes": sum(each.train_seconds for each in (run, *sources)) / 60,
                        "trained": cost(candidate, run.train_pictures, sum(each.train_pictures for each in sources))}
            rows.append(row)
    return pd.DataFrame(rows)


def shown(folder: Path | None = None) -> pd.DataFrame:
    """A row a candidate, as text for a table: what it is, top-1 of each network, and the mean cost."""
    table, rows = tried(folder), []
    for name, candidate in CANDIDATES.items():
        recipe, mine = BASE.replace(**candidate.changes), table[table["candidate"] == name].set_index("network")
        rows.append({"recipe": f"`{name}`",
                     "augmentation": f"`{recipe.augmentation}`", "epochs": str(recipe.epochs),
                     "also": ", ".join(f"`{key}` {value:g}" for key, value in candidate.changes.items()
                                   if key not in OWN_COLUMNS),
                     **{LABELS[network]: _filled("{:.1%}", mine["top1"][[network]]) for network in NETWORKS},
                     "pictures": _filled("{:,.0f}", mine["trained"]),
                     "minutes": _filled("{:.0f}", mine["minutes"])})
    return pd.DataFrame(rows)


def _filled(pattern, values):
    return OPEN if values.isna().any() else pattern.format(values.mean())
