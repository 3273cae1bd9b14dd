"""Checkpoints: all of network, optimiser and history comes back, two are kept, a damaged one is passed over."""
import numpy as np
import paddle
import pytest
from safetensors import safe_open

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
