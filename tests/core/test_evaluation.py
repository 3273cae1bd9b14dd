"""Evaluation: every picture counts once, in order, and the network is left as it was."""
from dataclasses import FrozenInstanceError

import numpy as np
import paddle
import pytest

from asymmlib.evaluation import Evaluation, evaluate, softmax


class Points(paddle.io.Dataset):
    """Seven points on a line; the label is 1 to the right of 0."""

    values = np.array([-3, -2, -1, 1, 2, 3, -4], np.float32)
    labels = np.array([0, 0, 1, 1, 1, 0, 0])

    def __getitem__(self, index):
        return self.values[index:index + 1], self.labels[index:index + 1]

    def __len__(self):
        return len(self.labels)


@pytest.fixture
def network():
    """Logits (0, x), behind a dropout that would spoil them in train mode."""
    network = paddle.nn.Sequential(paddle.nn.Linear(1, 2), paddle.nn.Dropout(0.9))
    paddle.assign(paddle.to_tensor([[0.0, 1.0]]), network[0].weight)
    return network


@pytest.mark.parametrize("batch_size", [1, 3, 7, 64])
def test_logits_of_all_pictures_in_their_order(network, batch_size):
    result = evaluate(network, Points(), batch_size)
    np.testing.assert_array_equal(result.logits, np.stack([Points.values * 0, Points.values], axis=1))
    assert result.predicted.tolist() == [0, 0, 0, 1, 1, 1, 0] and result.top1 == pytest.approx(5 / 7)
    # of class 0 three are right and one is taken for 1; of class 1 two are right and one is taken for 0
    assert result.confusion().tolist() == [[3, 1], [1, 2]]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_put_back_and_no_gradient_is_kept(network, training):
    network.train() if training else network.eval()
    evaluate(network, Points())
    assert network.training == network[1].training == training
    assert all(parameter.grad is None for parameter in network.parameters())


def test_probabilities_of_each_row():
    logits = np.add(np.log([[1.0, 1.0, 2.0], [3.0, 1.0, 4.0]]), [[1000.0], [-1000.0]])
    np.testing.assert_allclose(softmax(logits), [[0.25, 0.25, 0.5], [0.375, 0.125, 0.5]], rtol=1e-9)
    assert softmax(np.float32([[0, 1]])).dtype == np.float64


def test_a_sure_and_wrong_answer_has_a_finite_loss():
    assert Evaluation(np.array([[0.0, 5000.0]]), np.array([0])).loss == 5000  # not cut where float64 ends


def test_classes_that_nobody_predicts_are_in_the_confusion():
    result = Evaluation(np.array([[0.0, 1.0, 0.0]]), np.array([0]))
    assert result.confusion().tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 0]]


def test_what_was_measured_stays():
    measured = Evaluation(np.eye(2), np.array([0, 1]))
    with pytest.raises(FrozenInstanceError):
        measured.labels = np.array([1, 0])
