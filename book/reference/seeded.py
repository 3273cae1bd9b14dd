"""Record what the authors' code answers to the states that `asymmbook.evidence.reference.draw` draws from a seed.

Run as a script in the project's folder; PyTorch computes in float64, and the answers go to `book/reference/`:

    PYTHONPATH=.:book python book/reference/seeded.py torch CHECKOUT     (needs torch; written with torch 2.13.0)
    PYTHONPATH=.:book python book/reference/seeded.py gluon CHECKOUT     (needs mxnet 1.9.1 and numpy < 1.24)
    PYTHONPATH=.:book python book/reference/seeded.py files CHECKOUT     (needs torch; writes files as people save them)

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


def _small_state(network):
    """A state whose tensors are views of one storage of some kilobytes, with each layer's usual spread."""
    import torch
    state, largest = network.state_dict(), 3000
    spreads = {name: round(np.log2(np.sqrt(2 / np.prod(value.shape[1:])))) if value.ndim > 1 else
               "scale" if name.endswith((".weight", "_var")) else "shift" for name, value in state.items()}
    drawn = {spread: draw("scale.weight" if spread == "scale" else f"{spread}", (largest,))
             * (5 * 2.0**spread if isinstance(spread, int) else 1) for spread in dict.fromkeys(spreads.values())}
    flat = torch.tensor(np.concatenate(list(drawn.values())).astype(np.float32))
    for name, value in state.items():
        if value.is_floating_point():
            row = list(drawn).index(spreads[name])
            state[name] = flat.as_strided(value.shape, [1] * value.ndim, row * largest + len(name) % 50)
    return state


def record_files(checkout):
    """Files of the authors' Small ×0.35 as people save them, and its logits for two drawn pictures."""
    import torch
    network = _torch_network(checkout, "small", 0.35, 1, dropout=0.2).float()
    state = _small_state(network)
    for name, parameter in network.named_parameters():
        parameter.data = state[name]  # a view still, so that the whole module is small, too
    for name, value in network.named_buffers():
        place, _, leaf = name.rpartition(".")
        network.get_submodule(place)._buffers[leaf] = state.get(name, value)
    network.eval()
    with torch.no_grad():
        logits = network(torch.tensor(draw_batch(2)[0])).numpy()
    np.savez_compressed(REFERENCE / "torch_files.npz", logits=logits)
    parallel = {f"module.{name}": value for name, value in state.items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"state_dict": parallel, "epoch": 7, "optimizer": optimizer}, REFERENCE / "torch_checkpoint.pth.tar")
    torch.save(state, REFERENCE / "torch_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(network, REFERENCE / "torch_module.pth")
    average = {**state, "output.bias": (state["output.bias"] + 1).bfloat16()}
    torch.save({"model": state, "model_ema": average}, REFERENCE / "torch_average.ckpt")


if __name__ == "__main__":
    {"torch": record_torch, "gluon": record_gluon, "files": record_files}[sys.argv[1]](sys.argv[2])
