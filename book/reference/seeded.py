"""Record what the authors' code answers to the states that `asymmbook.evidence.reference.draw` draws from a seed.

Run as a script in the project's folder; PyTorch computes in float64, and the answers go to `book/reference/`:

    PYTHONPATH=.:book python book/reference/seeded.py torch CHECKOUT     (needs torch; written with torch 2.13.0)
    PYTHONPATH=.:book python book/reference/seeded.py gluon CHECKOUT     (needs mxnet 1.9.1 and numpy < 1.24)

where CHECKOUT is a clone of the authors' repository, Spark001/AsymmNet.
"""
import sys

import numpy as np

from asymmbook.evidence.reference import CLASSES, EVALUATED, REFERENCE, TRAINED, draw, draw_batch, key, thin


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
