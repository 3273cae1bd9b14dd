"""Find a network in a file: which names are its, under which prefix they stand, and what else is there.

Training scripts save a state dict under `model` or `state_dict`, beside an optimiser and counters, with `module.` or
`_orig_mod.` in front of names, and often a second network, the running average (EMA) of the first. The prefix is found
by the names that end as a naming of `asymmlib.weights.names` says; of two networks one is asked for, not guessed.
"""
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from asymmlib.network import FEATURES, ROWS, plan_blocks
from asymmlib.weights.contents import SAVE, Contents
from asymmlib.weights.names import NAMINGS, network_names
from asymmlib.weights.settings import NETWORK, read_settings
from asymmlib.weights.solve import solve

__all__ = ["Found", "find_network", "odd_tensors"]

# put between names by wrappers of PyTorch, at any depth
WRAPPERS = re.compile(r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# what PyTorch, SWA and thop count beside the weights
COUNTERS = re.compile(r"(?:^|\.)(?:num_batches_tracked|n_averaged|total_ops|total_params)$")
AVERAGE = re.compile(r"ema|swa|averag|teacher|shadow")  # of names of a running average: it is asked about in any case
TOP = "."  # what names without a prefix are called
# names that tell why a file does not fit -> what to do in PyTorch before saving
REMEDIES = {
    r"weight_(orig|mask)$": "it is pruned: call torch.nn.utils.prune.remove(layer, 'weight') for each such layer",
    r"\.parametrizations\.": "call torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') for each",
    r"\.weight_[gv]$": "call torch.nn.utils.remove_weight_norm(layer) for each such layer",
    r"_packed_params|zero_point$|activation_post_process": "it is quantised: save the network from before that",
    r"flat_param": "it is sharded by FSDP: save the full state dict (StateDictType.FULL_STATE_DICT)",
    r"\.lora_[AB]": "it has adapters: merge them (merge_and_unload)",
}
ALONE = {  # the same of names in a file without any network
    r"(^|\.)state\.\d+\.\w+$|(momentum_buffer|exp_avg|exp_avg_sq)$":
        "it has an optimiser's state alone: give the file of the network",
    r"\.[wb]_\d+_\w+_\d+$":
        "it has an optimiser's state of Paddle alone (.pdopt): give the file of the network (.pdparams)",
}


@dataclass
class Found:
    """The names of one network in a file: {name in the naming: full name}, below one prefix."""

    contents: Contents
    source: Path | str
    naming: str
    prefix: str
    names: dict[str, str] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)  # full names of the other networks in the file
    forced: str | None = None  # the port that is to be taken, whatever the names say
    lender: str = ""  # the network in the file that the running averages are of, where they are not its own

    @property
    def shown(self) -> str:
        """The prefix as `--key` takes it."""
        return self.prefix.rstrip("./") or TOP

    @property
    def port(self) -> str:
        """The authors' port that the names are of; our own say nothing, but our files do."""
        if self.forced:
            return self.forced
        return "gluon" if NAMINGS[self.naming].gluon else self.about.get("port", "pytorch")

    @cached_property
    def about(self) -> dict[str, Any]:
        """The settings that stand in a safetensors file of ours; {} elsewhere."""
        return read_settings(self.contents.metadata, self.source)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """variant, width, asymmrate and port, solved from the shapes; `ValueError` where they are of no AsymmNet."""
        shapes: dict[str, tuple[int, ...]] = {}
        for variant in sorted(ROWS, key=lambda name: len(ROWS[name])):  # Gluon's places count from the last block
            every = {*network_names(plan_blocks(variant)), *(
                f"blocks.{index}.expand.conv.weight" for index in range(len(ROWS[variant])))}
            found = {ours: self.contents.leaves[self.names[name]].shape
                     for ours, name in self.translate(every).items() if name in self.names}
            shapes = max(shapes, found, key=len)
        said = {key: self.about[key] for key in NETWORK if key in self.about}
        solved = solve(shapes, self.port)
        return said if said and plan_blocks(**said) == plan_blocks(**solved) else solved

    def translate(self, names: Iterable[str]) -> dict[str, str]:
        """{our name: the name in this file's naming}."""
        joined = "\n".join(self.names)
        rate = re.search(r"asym(\d+)exp", joined)
        first = re.search(r"^(?:arg:|aux:)?(?:asymmbottleneck|_modifyunitv3)(\d+)_seq-0-", joined, re.MULTILINE)
        return NAMINGS[self.naming].translate(list(names), int(rate[1]) if rate else 0, int(first[1]) if first else 0)

    @property
    def whole(self) -> bool:
        """Whether everything but the classifier of a network is there."""
        try:
            theirs = self.translate(network_names(plan_blocks(**self.settings)))
        except ValueError:
            return False
        return all(name in self.names for ours, name in theirs.items() if not ours.startswith("classifier."))

    def borrow(self, others: Iterable["Found"]) -> None:
        """Take the running averages of batch norm from another network: many averages are of parameters alone."""
        averages = {theirs for ours, theirs in self.translate(network_names(plan_blocks(**self.settings))).items()
                    if ours.endswith(("._mean", "._variance"))}
        for other in others:
            if not averages & self.names.keys() and (other.naming, other.settings) == (self.naming, self.settings):
                self.names |= {name: other.names[name] for name in averages}
                self.lender = other.shown

    def file_names(self, ours: Iterable[str]) -> dict[str, str]:
        """{our name: the full name in the file}, also where it is missing there."""
        return {name: self.names.get(theirs, self.prefix + theirs) for name, theirs in self.translate(ours).items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """{full name: array} of the network, and of what else stands in the same dict. Raises `ValueError`."""
        return {name: self.contents.array(name) for name, leaf in self.contents.leaves.items()
                if name in self._own or self._is_surplus(name, leaf)}

    @cached_property
    def _own(self):
        return set(self.names.values())

    def _is_surplus(self, name, leaf):
        """Whether an array stands in the network's own dict, yet is none of its, no counter, and no other network's."""
        container = self.contents.leaves[next(iter(self.names.values()))].container
        return (leaf.container == container and WRAPPERS.sub("", name).startswith(self.prefix)
                and name not in self.others and not COUNTERS.search(name))

    def turned(self, name: str) -> bool:
        """Whether a classifier's weight is (out, in), as PyTorch and Gluon have it, and not Paddle's (in, out)."""
        shape = self.contents.leaves[name].shape if name in self.contents.leaves else ()
        return len(shape) == 4 or (shape[1:] == (FEATURES,) and (
            shape[:1] != (FEATURES,) or self.naming not in ("ours", "paddle")))

    def heads(self) -> set[str]:
        """Full names of surplus arrays that belong to a layer on the features, as somebody's own classifier does."""
        own = {name for name, leaf in self.contents.leaves.items()
               if name not in self._own and self._is_surplus(name, leaf)}
        places = {name.rpartition(".")[0] for name in own if self.contents.leaves[name].shape[1:2] == (FEATURES,)}
        return {name for name in own if name.rpartition(".")[0] in places}

    def remedy(self) -> str:
        """What to do about a file that does not fit, by its names; "" where they tell nothing."""
        head = "\nIt has a classifier of its own: to start from the rest, add --new-head (new_head=True)"
        return odd_tensors(self.contents) + (_remedy(self.contents, REMEDIES) or (head if self.heads() else ""))

    def left_out(self) -> list[str]:
        """What else is in the file, by the outermost name that holds nothing of the network."""
        first = {re.split("[./]", name)[0] for name in self._own if WRAPPERS.sub("", name).startswith(self.prefix)}
        others = [(re.split("[./]", name)[0], name) for name in (*self.contents.entries, *self.contents.leaves)
                  if name not in self._own | first and not COUNTERS.search(name)]
        return list(dict.fromkeys(name if outermost in first else outermost for outermost, name in others))


def find_network(contents: Contents, source: Path | str, key: str | None = None, port: str | None = None) -> Found:
    """Find the network in a file; key: which one, by the prefix of its names; port: the one to take it for.

    Raises `ValueError` where there is none, none under that key, or several of which one must be chosen.
    """
    networks = _networks(contents, source)
    for found in networks:
        found.forced = port
    lenders = [found for found in networks if found.whole]
    if not networks:
        raise ValueError(_nothing(contents, source))
    if key is not None:
        wanted = [found for found in networks if found.shown == key] or [
            found for found in networks if found.prefix.startswith((f"{key}.", f"{key}/"))]
        if not wanted:
            raise ValueError(f"{source} has no network under {key!r}; there is one under {_listed(networks)}")
        networks = wanted
    for found in networks:
        if AVERAGE.search(found.prefix) and not found.whole and len(lenders) == 1:
            with suppress(ValueError):
                found.borrow(lenders)
    whole = [found for found in networks if found.whole]
    if len(whole) > 1 and not all(_equal(whole[0], other) for other in whole[1:]):
        raise ValueError(f"{source} holds {len(whole)} networks, under {_listed(whole)}: say which with "
                         f"--key, such as --key {whole[0].shown}. Where one is called ema, it is the running average "
                         "of the other, and often the better one to use")
    return (whole or networks)[0]


def _networks(contents: Contents, source: Path | str) -> list[Found]:
    """What could be networks in a file: the names of each prefix, in the naming that most of them follow."""
    best: dict[str, Found] = {}
    plain = {name: WRAPPERS.sub("", name) for name in contents.leaves}
    for naming, rule in NAMINGS.items():
        pattern, groups = rule.pattern, dict[str, Found]()
        for full, name in plain.items():
            if match := pattern.search(name):
                prefix = name[:match.start()]
                groups.setdefault(prefix, Found(contents, source, naming, prefix)).names.setdefault(match[0], full)
        for prefix, found in groups.items():
            if prefix not in best or len(found.names) > len(best[prefix].names):
                best[prefix] = found
    for found in best.values():
        found.others = {name for other in best.values() if other is not found for name in other.names.values()}
    most = max((len(found.names) for found in best.values()), default=0)
    return sorted((found for found in best.values() if 2 * len(found.names) >= most),
                  key=lambda found: -len(found.names))


def _equal(one: Found, other: Found) -> bool:
    """Whether two networks are the same arrays, as those of a module and of its state dict beside it are."""
    if AVERAGE.search(one.prefix + other.prefix) or one.naming != other.naming:
        return False
    return one.names.keys() == other.names.keys() and all(
        np.array_equal(one.contents.array(one.names[name]), other.contents.array(other.names[name]))
        for name in one.names)


def _listed(networks):
    return ", ".join(found.shown if found.shown != TOP else f"{TOP} (names without a prefix)" for found in networks)


def odd_tensors(contents: Contents) -> str:
    """A line about tensors of kinds that are not read: quantised and sparse ones, and those without values ("meta")."""
    if not contents.odd:
        return ""
    name, kind = next(iter(contents.odd.items()))
    return (f"\n{len(contents.odd)} tensors are not read, such as {name}, a {kind}: save plain ones on a CPU "
            "(value.dequantize(), value.to_dense())")


def _remedy(contents, remedies):
    """What the names tell to do, as a line; "" where they tell nothing."""
    return next((f"\n{remedy}" for pattern, remedy in remedies.items()
                 if any(re.search(pattern, name) for name in contents.leaves)), "")


def _nothing(contents, source):
    names = list(contents.leaves)
    if not names:
        return (f"{source} holds no arrays" + (f", only {', '.join(contents.entries[:5])}" if contents.entries else "")
                + ": save the weights, torch.save(model.state_dict(), OUT)" + odd_tensors(contents))
    return (f"{source}: none of the {len(names)} names is of an AsymmNet (the first: {', '.join(names[:3])}); known "
            f"namings: {', '.join(NAMINGS)}"
            + (_remedy(contents, REMEDIES | ALONE) or f"\nTo save the network itself: {SAVE}"))
