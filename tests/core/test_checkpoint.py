"""Checkpoints: all of network, optimiser and history comes back, two are kept, a damaged one is passed over."""
import numpy as np
import paddle
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from asymmlib.checkpoint import load_checkpoint, save_checkpoint


def parts(seed):
    """A network whose parameters Paddle names anew, a schedule, an optimiser with momentum."""
    paddle.seed(seed)
    network = paddle.nn.Sequential(paddle.nn.Conv2D(2, 3, 1), paddle.nn.BatchNorm2D(3))
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.5, 10)
    return network, schedule, paddle.optimizer.Momentum(schedule, 0.9, parameters=network.parameters())


def steps(network, schedule, optimizer, count):
    for number in range(count):
        (network(paddle.full([2, 2, 4, 4], number + 1.0)) ** 2).sum().backward()
        optimizer.step()
        optimizer.clear_grad()
        schedule.step()


def test_a_network_built_anew_goes_on_as_if_nothing_had_been(tmp_path):
    rows, (network, schedule, optimizer) = [{"epoch": 1, "lr": 0.5}, {"epoch": 2, "lr": 0.25}], parts(0)
    steps(network, schedule, optimizer, 3)
    save_checkpoint(tmp_path / "new" / "folder", network, optimizer, rows)
    other, other_schedule, other_optimizer = parts(1)
    assert load_checkpoint(tmp_path / "new" / "folder", other, other_optimizer) == rows
    assert other_schedule() == schedule() != 0.5 and other_schedule.last_epoch == 3
    for trained in ((network, schedule, optimizer), (other, other_schedule, other_optimizer)):
        steps(*trained, 2)                             # momentum and rate decide where these lead
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[name].numpy(), value.numpy())


def test_tensors_go_by_the_network_s_own_names(tmp_path):
    network, schedule, optimizer = parts(0)
    steps(network, schedule, optimizer, 1)
    save_checkpoint(tmp_path, network, optimizer, [{}])
    with safe_open(tmp_path / "epoch-0001.safetensors", framework="numpy") as file:
        names = set(file.keys())
    trained = {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert names == {f"network/{name}" for name in (*trained, "1._mean", "1._variance")} | {
        f"optimizer/{name}/velocity_0" for name in trained}


def test_the_two_newest_are_kept_and_a_damaged_one_is_passed_over(tmp_path, capsys):
    network, _schedule, optimizer = parts(0)
    assert load_checkpoint(tmp_path, network, optimizer) == []
    for count in (1, 2, 3):
        paddle.assign(paddle.full_like(network[0].bias, count), network[0].bias)
        save_checkpoint(tmp_path, network, optimizer, [{"epoch": number + 1} for number in range(count)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-0002.safetensors", "epoch-0003.safetensors"]
    assert len(load_checkpoint(tmp_path, network, optimizer)) == 3 and capsys.readouterr().out == ""
    (tmp_path / "epoch-0003.safetensors").write_bytes(b"torn")
    assert load_checkpoint(str(tmp_path), network, optimizer) == [{"epoch": 1}, {"epoch": 2}]
    assert network[0].bias.tolist() == [2, 2, 2]
    assert "epoch-0003.safetensors is damaged" in capsys.readouterr().out
    (tmp_path / "epoch-0002.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 2 checkpoints in .* can be used"):
        load_checkpoint(tmp_path, network, optimizer)


@pytest.mark.parametrize("rate", [0.25])
def test_a_rate_without_a_schedule_is_left_alone(tmp_path, rate):
    network = paddle.nn.Linear(2, 2)
    optimizer = paddle.optimizer.Momentum(rate, parameters=network.parameters())
    save_checkpoint(tmp_path, network, optimizer, [])
    load_checkpoint(tmp_path, network, optimizer)
    assert optimizer.get_lr() == rate


class Scaler:
    """What a checkpoint asks of mixed precision's scaler, which is off without a GPU."""

    def __init__(self, scale):
        self.scale = scale

    def state_dict(self):
        return {"scale": np.float32([self.scale])}

    def load_state_dict(self, state):
        self.scale = state["scale"]


def test_a_scaler_and_a_checkpoint_without_one_do_not_mind_each_other(tmp_path):
    network, _schedule, optimizer = parts(0)
    save_checkpoint(tmp_path / "plain", network, optimizer, [{"epoch": 1}])
    load_checkpoint(tmp_path / "plain", network, optimizer, scaler := Scaler(64.0))
    assert scaler.scale == 64.0
    save_checkpoint(tmp_path / "scaled", network, optimizer, [{"epoch": 1}], scaler)
    assert load_checkpoint(tmp_path / "scaled", network, optimizer) == [{"epoch": 1}]
    load_checkpoint(tmp_path / "scaled", network, optimizer, other := Scaler(2.0))
    assert other.scale == 64.0


def test_a_checkpoint_of_another_network_says_how_far_it_is(tmp_path, capsys):
    network, _schedule, optimizer = parts(0)
    save_checkpoint(tmp_path, network, optimizer, [{"epoch": 1}])
    other = paddle.nn.Sequential(paddle.nn.Conv2D(2, 3, 1, bias_attr=False), paddle.nn.BatchNorm2D(3))
    with pytest.raises(ValueError, match="none of the 1 checkpoints"):
        load_checkpoint(tmp_path, other, paddle.optimizer.Momentum(0.1, parameters=other.parameters()))
    assert "it is of another network: network/0.bias)" in capsys.readouterr().out
    two = paddle.nn.Sequential(*other, paddle.nn.Linear(4, 4))
    with pytest.raises(ValueError, match="none of the 1 checkpoints"):
        load_checkpoint(tmp_path, two, paddle.optimizer.Momentum(0.1, parameters=two.parameters()))
    assert "it is of another network: network/0.bias and 2 more)" in capsys.readouterr().out


def test_without_a_digest_only_what_was_written_before_there_were_any_is_read(tmp_path, capsys):
    network, _schedule, optimizer = parts(0)
    save_checkpoint(tmp_path, network, optimizer, [{"epoch": 1}])
    path = tmp_path / "epoch-0001.safetensors"
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        metadata = {key: file.metadata()[key] for key in ("schedule", "rows")}
    save_file(tensors, path, metadata)
    assert load_checkpoint(tmp_path, network, optimizer) == [{"epoch": 1}]
    save_file(tensors, path, {**metadata, "run": "null"})
    with pytest.raises(ValueError, match="none of the 1 checkpoints"):
        load_checkpoint(tmp_path, network, optimizer)
    assert "it has no SHA-256 of its content" in capsys.readouterr().out
