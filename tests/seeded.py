"""States drawn from a seed, and what the authors' code answers to them.

A reference state of 2 to 20 MB need not be stored where a rule can draw it again. `draw` is that rule. Run as a
script, this file records the answers of the authors' code, in float64 for PyTorch, into `tests/reference/`:

    python tests/seeded.py torch CHECKOUT     (needs torch; written with torch 2.13.0)
    python tests/seeded.py gluon CHECKOUT     (needs mxnet 1.9.1 and numpy < 1.24)

where CHECKOUT is a clone of the authors' repository, Spark001/AsymmNet.
"""
import sys
import zlib
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).parent / "reference"
CLASSES = 16
EVALUATED = [(variant, width, rate) for variant in ("large", "small") for width in (0.35, 0.5, 0.75, 1.0)
             for rate in (0, 1, 2) if (width, rate) != (0.35, 2)]
TRAINED = [("large", 0.35, 1), ("small", 0.5, 2)]
KEPT = 128  # values kept of one gradient or running average


def key(variant, width, rate):
    return f"{variant}_{width}_r{rate}"


def draw(name, shape):
    """A float32 array for a parameter by its official name; no batch norm is close to the identity."""
    # RandomState's stream is frozen, and no function of the C library comes in: the same bits everywhere
    uniform = np.random.RandomState(zlib.crc32(name.encode())).random_sample(shape) * 2 - 1
    if len(shape) == 1 and name.endswith(("running_var", "weight", "gamma")):
        return (1 + uniform / 2).astype(np.float32)
    if len(shape) == 1:
        return (uniform / 5).astype(np.float32)
    return (uniform * np.sqrt(5 / np.prod(shape[1:]))).astype(np.float32)


def draw_batch(size):
    """Pictures [size, 3, 64, 64] between -2 and 2, and labels."""
    return draw(f"pictures {size}", (size, 3, 64, 64)) * np.sqrt(8, dtype=np.float32), np.arange(size) * 5 % CLASSES


def thin(values):
    """At most `KEPT` values, evenly spaced, of an array in PyTorch's layout."""
    flat = np.ravel(values)
    return flat[::max(1, -(-flat.size // KEPT))]


def _torch_network(checkout, variant, width, rate, dropout):
    import torch
    sys.path.insert(0, str(checkout))
    from pytorch.asymmnet import AsymmNet
    network = AsymmNet(f"asymmnet_{variant}", num_classes=CLASSES, multiplier=width, asymmrate=rate,
                       dropout_rate=dropout)
    network.load_state_dict({name: torch.zeros_like(value) if name.endswith("num_batches_tracked") else
                             torch.tensor(draw(name, tuple(value.shape))) for name, value in
                             network.state_dict().items()}, strict=True)
    return network.double()


def _torch_step(network):
    """Loss, gradients and running averages of one step in train mode, the variance also without Bessel's factor."""
    import torch
    norms = {name: layer for name, layer in network.named_modules() if isinstance(layer, torch.nn.BatchNorm2d)}
    before = {name: layer.running_var.clone() for name, layer in norms.items()}
    counts = {}
    for name, layer in norms.items():
        layer.register_forward_hook(lambda _, given, __, name=name: counts.update({name: given[0][:, 0].numel()}))
    pictures, labels = draw_batch(4)
    logits = network.train()(torch.tensor(pictures).double())
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels))
    loss.backward()
    result = {"loss": loss.item(), "logits": logits.detach().numpy()}
    result |= {f"grad/{name}": thin(value.grad.numpy()).astype(np.float32) for name, value in
               network.named_parameters()}
    for name, layer in norms.items():
        unbiased = (layer.running_var - 0.9 * before[name]) / 0.1
        biased = 0.9 * before[name] + 0.1 * unbiased * (counts[name] - 1) / counts[name]
        result[f"after/{name}.running_mean"] = thin(layer.running_mean.numpy()).astype(np.float32)
        result[f"after/{name}.running_var_if_biased"] = thin(biased.numpy()).astype(np.float32)
    return result


def record_torch(checkout):
    import torch
    found = {}
    for settings in EVALUATED:
        network = _torch_network(checkout, *settings, dropout=0.2).eval()
        with torch.no_grad():
            found[f"eval/{key(*settings)}"] = network(torch.tensor(draw_batch(2)[0]).double()).numpy()
    for settings in TRAINED:
        step = _torch_step(_torch_network(checkout, *settings, dropout=0.0))
        found |= {f"train/{key(*settings)}/{name}": value for name, value in step.items()}
    np.savez_compressed(REFERENCE / "seeded_torch.npz", **found)


def record_gluon(checkout):
    import mxnet
    sys.path.insert(0, str(checkout))
    from models.asymmnet import AsymmNet, get_asymmnet_cfgs

    pictures, found = mxnet.nd.array(draw_batch(2)[0]), {}
    for variant, width, rate in EVALUATED:
        network = AsymmNet(*get_asymmnet_cfgs(f"asymmnet_{variant}"), multiplier=width, classes=CLASSES,
                           asymmrate=rate, final_drop=0.2)
        network.initialize()
        network(pictures)  # Gluon learns the shapes from the first batch
        attributes, graph = network._collect_params_with_prefix(), {}
        for name, parameter in attributes.items():
            graph[parameter.name] = name
            parameter.set_data(mxnet.nd.array(draw(name, parameter.shape)))
        found[f"eval/{key(variant, width, rate)}"] = network(pictures).asnumpy()
        found[f"graph/{key(variant, width, rate)}"] = np.array(list(graph))
        found[f"attributes/{key(variant, width, rate)}"] = np.array(list(graph.values()))
    np.savez_compressed(REFERENCE / "seeded_gluon.npz", **found)


if __name__ == "__main__":
    {"torch": record_torch, "gluon": record_gluon}[sys.argv[1]](sys.argv[2])
