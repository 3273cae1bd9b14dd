"""The real pictures, where the archive is at hand: counts, statistics, and a few steps of training."""
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from asymmlib.dataset import Pictures, make_loader
from asymmlib.network import asymmnet_small
from asymmlib.recipes import Recipe
from asymmlib.training import make_optimizer


@pytest.mark.slow
def test_counts_by_the_articles_rule(caltech16):
    assert len(caltech16.manifest) == 1817 and len(caltech16.class_names) == 16
    assert caltech16.manifest["split"].value_counts().to_dict() == {"train": 1447, "eval": 370}
    sizes = caltech16.manifest["class"].value_counts()
    assert sizes["watch"] == 239 and sizes["buddha"] == 85


@pytest.fixture(scope="module")
def train_set(caltech16):
    return Pictures(caltech16, "train", 32)


@pytest.mark.slow
def test_batches_and_statistics(caltech16, train_set):
    assert len(make_loader(train_set, 32)) == 46
    assert len(make_loader(Pictures(caltech16, "eval", 32), 32)) == 12
    np.testing.assert_allclose(train_set.mean, [0.512, 0.500, 0.469], atol=0.01)


@pytest.mark.slow
def test_a_few_steps_lower_the_loss(train_set):
    paddle.seed(0)
    network = asymmnet_small(num_classes=16, dropout=0.0)
    optimizer = make_optimizer(network, Recipe("steps", image_size=32, epochs=1), 0.02)
    images, labels = next(iter(make_loader(train_set, 32, shuffle=True)))
    losses = []
    for _ in range(8):
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
