"""Train one run on two machines: python machines.py CASE FOLDER.

The machines are two network namespaces whose host names stand for 127.0.1.1, as on Debian, and the line is that of
book/scale-out.md. In the first case both see one runs' folder, and the run, whose first epoch is done, is finished by
two processes. In the others they do not do the same work: both have to end, with one message and nothing trained.
Prints the line of `outcomes.Counts`; ends with 77 where there are no such namespaces.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from outcomes import Counts, expect
from PIL import Image

ROOT = Path(__file__).parents[2]
ADDRESSES = {"one": "10.99.7.1", "two": "10.99.7.2"}
LIMIT_S = 400
# what machine "two" does in another way: (its options, its variables, what both have to name)
CASES = {"the same work": ([], {}, ""),
         "no shared folder": ([], {"ASYMMLIB_RUNS": "elsewhere"}, "the last finished epoch is 1 in process 0 and 0 in"),
         "another number of epochs": (["--epochs", "3"], {}, "recipe is"),
         "other pictures": (["--data", "others"], {}, "manifest_sha256 is"),
         "another model": (["--model", "asymmnet_large"], {}, "model is asymmnet_small in process 0")}
ASKED = ["--model", "asymmnet_small", "--width", "0.35", "--data", "pictures", "--epochs", "2", "--image-size", "32",
         "--batch-size", "8", "--name", "pair"]


def ip(*arguments):
    """Run `ip`; what it says is in the error's stderr."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def machines():
    """Names of two namespaces, each with an address and with a table of hosts like Debian's."""
    if not sys.platform.startswith("linux") or os.getuid() or not shutil.which("ip"):
        sys.exit(77)
    names = {key: f"asymm-{os.getpid()}-{key}" for key in ADDRESSES}
    try:
        try:
            for name in names.values():
                ip("netns", "add", name)
            ip("link", "add", "one", "netns", names["one"], "type", "veth", "peer", "two", "netns", names["two"])
        except subprocess.CalledProcessError as error:
            print(error.stderr.decode(), file=sys.stderr)
            sys.exit(77)
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


def draw(folder, seed):
    """Two classes of small pictures."""
    rng = np.random.default_rng(seed)
    for label in "ab":
        (folder / label).mkdir(parents=True)
        for number in range(10):
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / label / f"{number}.png")


def environment(root, key, variables=()):
    """The variables of a machine: runs on a shared disk, data of its own."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ASYMMLIB_HOME": str(root / f"data-{key}")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    places = {"ASYMMLIB_RUNS": "runs", **dict(variables)}
    return kept | own | {name: str(root / value) for name, value in places.items()}


def begin(root):
    """A run whose first epoch of two is done."""
    subprocess.run([sys.executable, "-m", "asymmlib", "train", *ASKED], cwd=root, env=environment(root, "one"),
                   check=True, capture_output=True)
    folder = root / "runs" / "pair"
    (folder / "checkpoints" / "epoch-0002.safetensors").unlink()
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({key: value for key, value in record.items() if key != "result"}))


def start(root, key, name, options, variables):
    """Give the documented line on one machine."""
    launch = ["-m", "paddle.distributed.launch", "--master", f"{ADDRESSES['one']}:8090", "--host", ADDRESSES[key],
              "--nnodes", "2", "--nproc_per_node", "1", "--log_dir", root / f"log-{key}"]
    train = [sys.executable, "-m", "asymmlib", "train", *ASKED, *options]
    return subprocess.Popen(["ip", "netns", "exec", name, sys.executable, *launch, *train], cwd=root, text=True,
                            env=environment(root, key, variables), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def work(root, names, case):
    """(exit statuses, what the process on each machine wrote) of both."""
    options, variables, _ = CASES[case]
    jobs = [start(root, key, name, *((options, variables) if key == "two" else ([], {})))
            for key, name in names.items()]
    try:
        said = [job.communicate(timeout=LIMIT_S)[0] for job in jobs]
    except subprocess.TimeoutExpired:
        expect(False, "hung", f"not ended after {LIMIT_S} s")
    finally:
        for job in jobs:
            job.kill()
    logs = [path.read_text(errors="replace") if (path := root / f"log-{key}" / "workerlog.0").is_file() else text
            for key, text in zip(names, said, strict=True)]
    return [job.returncode for job in jobs], logs


def judge(root, case, statuses, logs):
    """Raise `Ended` unless both machines did what they should."""
    record = json.loads((root / "runs" / "pair" / "run.json").read_text())
    if not CASES[case][2]:
        expect(statuses == [0, 0], "crashed", f"{statuses}: {logs[0][-500:]} {logs[1][-500:]}")
        expect("result" in record and record["sessions"][-1]["processes"] == 2
               and record["pictures"] == {"train": 16, "eval": 4}, "silent", f"recorded: {record}")
        return
    expect(0 not in statuses and "result" not in record, "silent", f"they went on: {statuses}")
    told = [re.findall("^error: (.*)", log, re.M) for log in logs]
    expect([len(lines) for lines in told] == [1, 1] and told[0] == told[1] and CASES[case][2] in told[0][0],
           "crashed", f"{statuses}: {logs[0][-700:]} {logs[1][-700:]}")


if __name__ == "__main__":
    case, root, counts = sys.argv[1], Path(sys.argv[2]).absolute(), Counts()
    for seed, folder in enumerate(("pictures", "others")):
        draw(root / folder, seed)
    begin(root)
    with machines() as names, counts.trial(case):
        judge(root, case, *work(root, names, case))
    counts.report()
