"""Checkpoints: network, optimiser, schedule and history of a run in one safetensors file per epoch.

One file appears under its name only when it is complete on disk, nothing in it is a pickle, and the two newest are
kept. Tensors are stored under the network's own parameter names, so a checkpoint fits a network built in any process.
A SHA-256 over all of them and the metadata stands beside: one flipped bit is seen when the file is read.
Notebook 03, section 5, shows where they lie in the folder of a run.
"""
import json
import re
from pathlib import Path

import numpy as np
import paddle

from asymmlib.base.files import open_regular
from asymmlib.weights.own import DAMAGE, save_tensors, unpack_tensors
from asymmlib.weights.settings import check_network, complete

__all__ = ["is_checkpoint", "load_checkpoint", "save_checkpoint"]

KEPT = 2
NAME = re.compile(r"epoch-(\d{4,})\.safetensors")  # a copy under another name is none of ours
OLD = {"schedule", "rows"}  # all that the metadata had before there were digests


def save_checkpoint(folder: Path, network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer,
                    rows: list[dict[str, float]], scaler: paddle.amp.GradScaler | None = None,
                    run: str | None = None) -> None:
    """Write `epoch-NNNN.safetensors` after epoch `len(rows)` and remove all before it but one.

    scaler: the `paddle.amp.GradScaler` of mixed precision. run: id of the run that it belongs to.
    """
    names = _parameter_names(network)
    tensors = {f"network/{name}": value.numpy() for name, value in network.state_dict().items()}
    schedule = {}
    for key, value in optimizer.state_dict().items():
        if key == "LR_Scheduler":
            schedule = value
        else:
            owner = next(name for name in names if key.startswith(name + "_"))
            tensors[f"optimizer/{names[owner]}/{key[len(owner) + 1:]}"] = value.numpy()
    for slot in {key.rsplit("/", 1)[-1] for key in tensors if key.startswith("optimizer/")}:
        for name, value in network.named_parameters():  # what was frozen so far has none: it will begin with zeros
            if not value.stop_gradient:
                tensors.setdefault(f"optimizer/{name}/{slot}", np.zeros(value.shape, np.float32))
    facts = {"schedule": schedule, "rows": rows, "scaler": _plain(scaler.state_dict()) if scaler else {}, "run": run}
    metadata = complete(network, {key: json.dumps(value, allow_nan=False) for key, value in facts.items()})
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(tensors, folder / f"epoch-{len(rows):04d}.safetensors", metadata)
    for epoch, old in _numbered(folder):
        if epoch <= len(rows) - KEPT:
            old.unlink()


def load_checkpoint(folder: Path | str, network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer,
                    scaler: paddle.amp.GradScaler | None = None,
                    run: str | None = None) -> list[dict[str, float]]:
    """Put the newest good checkpoint of a folder back; return its history rows, [] where there is none at all.

    A file that is damaged, of another run or of another network is named in a printed line and the one before is taken.
    Raises `ValueError` where there are some and none of them is good: nothing is lost by that.
    """
    found = sorted(_numbered(Path(folder)), reverse=True)
    for _, path in found:
        try:
            tensors, facts = _read(path)
            if run is not None and facts.get("run", run) != run:
                raise ValueError("it is of another run")
            check_network(network, facts.get("settings", {}), "it")
            _check(tensors, network)
        except DAMAGE as error:
            print(f"checkpoint {path.name} is damaged ({error}); going back to the one before", flush=True)
            continue
        _restore(network, optimizer, tensors, facts["schedule"])
        if scaler is not None and facts.get("scaler"):
            scaler.load_state_dict(facts["scaler"])
        return facts["rows"]
    if found:
        raise ValueError(f"none of the {len(found)} checkpoints in {folder} can be used (see above): put a good copy "
                         "there, or start over with fresh=True (--fresh)")
    return []


def is_checkpoint(path: Path | str) -> bool:
    """Whether a file is a whole checkpoint that this library wrote, of whatever run."""
    try:
        return bool(_read(path))
    except DAMAGE:
        return False


def _numbered(folder):
    """(epoch, path) of each checkpoint in a folder."""
    return [(int(name[1]), path) for path in folder.glob("epoch-*")
            if (name := NAME.fullmatch(path.name)) and not path.is_dir()]


def _read(path):
    """({name: array}, {fact: value}) of a checkpoint whose digest is right; raises one of `DAMAGE`."""
    with open_regular(path) as file:
        tensors, metadata, signed = unpack_tensors(file.read())
    if not signed and metadata.keys() != OLD:
        raise ValueError("it has no SHA-256 of its content")
    facts = {key: json.loads(value) for key, value in metadata.items()}
    if not isinstance(facts["rows"], list) or not isinstance(facts["schedule"], dict):
        raise ValueError("its metadata are of another kind")
    return tensors, facts


def _check(tensors, network):
    """Raise `ValueError` unless names and shapes are those of this network and of an optimiser of its parameters."""
    own = {f"network/{name}": list(value.shape) for name, value in network.state_dict().items()}
    slots = {key.rsplit("/", 1)[-1] for key in tensors if key.startswith("optimizer/")}
    own |= {f"optimizer/{name}/{slot}": list(value.shape) for name, value in network.named_parameters()
            for slot in slots if not value.stop_gradient}
    wrong = sorted(own.keys() ^ tensors.keys()) or [key for key in own if list(tensors[key].shape) != own[key]]
    if wrong:
        raise ValueError(f"it is of another network: {wrong[0]}" + (f" and {len(wrong) - 1} more" * (len(wrong) > 1)))


def _restore(network, optimizer, tensors, schedule):
    network.set_state_dict({key.removeprefix("network/"): paddle.to_tensor(value)
                            for key, value in tensors.items() if key.startswith("network/")})
    own_names = {structural: name for name, structural in _parameter_names(network).items()}
    state = {"LR_Scheduler": schedule} if schedule else {}
    for key, value in tensors.items():
        if key.startswith("optimizer/"):
            _, structural, slot = key.split("/")
            state[f"{own_names[structural]}_{slot}"] = paddle.to_tensor(value)
    optimizer.set_state_dict(state)


def _plain(state):
    """A scaler's state for JSON: its scale is an array of one number."""
    return {key: value.item() if hasattr(value, "item") else value for key, value in state.items()}


def _parameter_names(network):
    """Paddle's name, which differs from process to process -> the name within the network, which does not."""
    return {parameter.name: name for name, parameter in network.named_parameters()}
