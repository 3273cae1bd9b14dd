"""What is timed, one process a case: `python benchmarks/cases.py NETWORK CASE SIZE BATCH WIDTH`, then one line in, one
out.

A line "n" on stdin runs n steps and answers with their seconds as JSON; an empty line answers with the peak memory
in MiB. The first answer is about one step that warms up. Everything random is seeded; pixels are noise, but for the
article's pipeline and for ours with data ("article", "ours_data", and "ours_workers" with two threads that read), which
read the drawn sample.
"""
import json
import os
import resource
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def paddle_step(network, batches, accelerate=None):
    """A function that does one training step on the next batch."""
    import paddle
    optimizer = paddle.optimizer.Momentum(0.01, 0.9, parameters=network.parameters(), weight_decay=1e-4)
    if accelerate:
        accelerate(network, optimizer=optimizer)
    loss = paddle.nn.CrossEntropyLoss()

    def step():
        pictures, labels = next(batches)
        loss(network(pictures), labels).backward()
        optimizer.step()
        optimizer.clear_grad()
    return step


def noise(size, batch):
    """The same random batch over and over."""
    import paddle
    paddle.seed(0)
    data = paddle.randn([batch, 3, size, size]), paddle.randint(0, 16, [batch, 1])
    while True:
        yield data


def article_batches(size, batch):
    """The article's dataset: every picture decoded twice, resized and turned as a float32 array."""
    import numpy as np
    import paddle
    from PIL import Image

    from asymmlib.data.sources import prepare
    from asymmlib.dataset import ARTICLE_MEAN, ARTICLE_STD
    prepared, rng = prepare("sample"), np.random.default_rng(0)
    rows = prepared.manifest[prepared.manifest["split"] == "train"]
    mean, std = (np.array(v, "float32")[:, None, None] for v in (ARTICLE_MEAN, ARTICLE_STD))

    def load(path):
        planes = np.asarray(Image.open(path).convert("RGB"), "float32")
        planes = [Image.fromarray(planes[..., i]).resize((size, size)).rotate(rng.uniform(-10, 10)) for i in range(3)]
        return (np.stack([np.asarray(plane) for plane in planes]) / 255 - mean) / std

    while True:
        chosen = rows.sample(batch, random_state=rng.integers(2**31))
        paths = [Path(prepared.images) / name for name in chosen["path"]]
        for path in paths:
            Image.open(path).convert("RGB")  # the second reading, for the label alone
        labels = [prepared.class_names.index(name) for name in chosen["class"]]
        yield paddle.to_tensor(np.stack([load(path) for path in paths])), paddle.to_tensor(labels).reshape([-1, 1])


def our_batches(size, batch, workers=0):
    """Our loader on the drawn sample, with the rotation of the recipes."""
    from asymmlib.data.sources import prepare
    from asymmlib.dataset import Pictures, make_loader
    pictures = Pictures(prepare("sample"), "train", size, augmentation="rotate")
    while True:
        yield from (pair for pair in make_loader(pictures, batch, True, workers=workers) if len(pair[1]) == batch)


def data_step(size, batch):
    """Our data path alone, read from the dataset itself: a loader would have fetched ahead between two turns."""
    from asymmlib.data.sources import prepare
    from asymmlib.dataset import Pictures
    pictures = Pictures(prepare("sample"), "train", size, augmentation="rotate")
    return lambda: [pictures[index] for index in range(batch)]


BATCHES = {"article": article_batches, "ours_data": our_batches, "ours_workers": partial(our_batches, workers=2)}


def paddle_case(network, name, size, batch, width):
    """A step of Paddle: stock, article, ours without and with data, or data alone."""
    from asymmlib.base.startup import load_paddle
    paddle = load_paddle()
    from asymmlib import network as net
    from asymmlib.fast import accelerate
    from asymmlib.models import MODELS, create_model
    paddle.seed(0)
    if name == "data":
        return data_step(size, batch)
    if name == "article":
        net.ACTIVATIONS["hardswish"] = lambda x: x * (paddle.nn.functional.relu6(x + 3) / 6)
    model = create_model(network, 16, width=width if MODELS[network].scalable else None)
    batches = BATCHES.get(name, noise)(size, batch)
    return paddle_step(model, batches, accelerate if name.startswith("ours") else None)


def torch_case(name, size, batch):
    """A step of PyTorch: channels_last as the authors' code is, or tuned."""
    import torch
    from torch_asymmnet import asymmnet_large, composed_hardswish
    torch.manual_seed(0)
    tuned = {} if name.endswith("tuned") else {"hardswish": composed_hardswish}
    if not tuned:
        from asymmlib.fast.native import tune_malloc
        tune_malloc()
    network = asymmnet_large(**tuned).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, 0.9, weight_decay=1e-4)
    pictures = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 16, (batch,))

    def step():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(pictures), labels).backward()
        optimizer.step()
    return step


def main(network, name, size, batch, width):
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    size, batch = int(size), int(batch)
    step = (torch_case(name, size, batch) if name.startswith("torch")
            else paddle_case(network, name, size, batch, float(width)))
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line.strip() or 0)):
            started = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - started)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(seconds or peak), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
