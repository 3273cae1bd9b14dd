"""Checkpoints: network, optimiser, schedule and history of a run in one safetensors file per epoch.

One file appears under its name only when it is complete on disk, nothing in it is a pickle, and the two newest are
kept. Tensors are stored under the network's own parameter names, so a checkpoint fits a network built in any process.
Notebook 03, section 5, shows where they lie in the folder of a run.
"""
import json
from pathlib import Path

import paddle
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from asymmlib.base.files import atomic_write

__all__ = ["load_checkpoint", "save_checkpoint"]

KEPT = 2


def save_checkpoint(folder: Path, network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer,
                    rows: list[dict[str, float]]) -> None:
    """Write `epoch-NNNN.safetensors` after epoch `len(rows)` and remove all but the newest two."""
    names = _parameter_names(network)
    tensors = {f"network/{name}": value.numpy() for name, value in network.state_dict().items()}
    schedule = {}
    for key, value in optimizer.state_dict().items():
        if key == "LR_Scheduler":
            schedule = value
        else:
            owner = next(name for name in names if key.startswith(name + "_"))
            tensors[f"optimizer/{names[owner]}/{key[len(owner) + 1:]}"] = value.numpy()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"epoch-{len(rows):04d}.safetensors") as file:
        file.write(save(tensors, metadata={"schedule": json.dumps(schedule), "rows": json.dumps(rows)}))
    for old in sorted(folder.glob("epoch-*.safetensors"))[:-KEPT]:
        old.unlink()


def load_checkpoint(folder: Path | str, network: paddle.nn.Layer,
                    optimizer: paddle.optimizer.Optimizer) -> list[dict[str, float]]:
    """Put the newest readable checkpoint of a folder back; return its history rows, [] where there is none.

    A damaged file is named in a printed line and the one before is taken.
    """
    for path in sorted(Path(folder).glob("epoch-*.safetensors"), reverse=True):
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata()
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            print(f"checkpoint {path.name} is damaged ({error}); going back to the one before", flush=True)
            continue
        _restore(network, optimizer, tensors, json.loads(metadata["schedule"]))
        return json.loads(metadata["rows"])
    return []


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


def _parameter_names(network):
    """Paddle's name, which differs from process to process -> the name within the network, which does not."""
    return {parameter.name: name for name, parameter in network.named_parameters()}
