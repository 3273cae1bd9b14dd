"""Two machines, as two network namespaces whose names stand for 127.0.1.1, meet by the line of scale-out.md."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asymmlib.base import parallel
from asymmlib.runs import find_run

ROOT = Path(parallel.__file__).parents[2]
ADDRESSES = {"one": "10.99.7.1", "two": "10.99.7.2"}


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines():
    """Names of two namespaces, each with an address and with a table of hosts like Debian's."""
    if not sys.platform.startswith("linux") or os.getuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need Linux, root and iproute2")
    names = {key: f"asymm-{os.getpid()}-{key}" for key in ADDRESSES}
    try:
        try:
            for name in names.values():
                ip("netns", "add", name)
            ip("link", "add", "one", "netns", names["one"], "type", "veth", "peer", "two", "netns", names["two"])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        for key, name in names.items():
            ip("-n", name, "addr", "add", f"{ADDRESSES[key]}/24", "dev", key)
            for device in (key, "lo"):
                ip("-n", name, "link", "set", device, "up")
            hosts = Path("/etc/netns") / name / "hosts"
            hosts.parent.mkdir(parents=True)
            hosts.write_text(f"127.0.0.1 localhost\n127.0.1.1 {os.uname().nodename}\n")
        yield names
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


@pytest.mark.serial
def test_two_machines_whose_names_stand_for_loopback(machines, home, picture_folder):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    jobs = []
    for key, name in machines.items():
        launch = ["-m", "paddle.distributed.launch", "--master", f"{ADDRESSES['one']}:8090", "--host", ADDRESSES[key],
                  "--nnodes", "2", "--nproc_per_node", "1", "--log_dir", home / f"log-{key}"]
        train = ["-m", "asymmlib", "train", "--model", "asymmnet_small", "--data", picture_folder, "--epochs", "1",
                 "--image-size", "32", "--batch-size", "8", "--name", "pair"]
        own = environment | {"ASYMMLIB_HOME": str(home / f"data-{key}")}
        jobs.append(subprocess.Popen(["ip", "netns", "exec", name, sys.executable, *launch, sys.executable, *train],
                                     env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    try:
        said = [job.communicate(timeout=400)[0] for job in jobs]
    finally:
        for job in jobs:
            job.kill()
    assert [job.returncode for job in jobs] == [0, 0], said
    run = find_run("pair")
    assert run.finished and run.info["processes"] == 2 and run.info["pictures"] == {"train": 24, "eval": 6}
