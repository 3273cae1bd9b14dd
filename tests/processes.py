"""Python processes that find Paddle loaded, for tests that need a process of their own: `run_python(*arguments)`.

As `subprocess.run([sys.executable, *arguments])`, without the seconds that Paddle and pandas take to load: a server
imports these, nothing of ours, and forks. The child has the `__main__`, arguments, folder, environment and streams that
it would have, and goes through the interpreter's own end. Not for what the interpreter itself reads of its environment,
nor where loading is what is tested. Where nothing can be forked it is a plain process.
"""
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
STREAMS = ("stdin", "stdout", "stderr")


def run_python(*arguments, env=None, cwd=None, input="", timeout=None):
    """A `subprocess.CompletedProcess` with text of stdout and stderr. arguments: `-W ignore` or not, then a script,
    `-c` and code, or `-m` and a module, and what it is given. Raises `subprocess.TimeoutExpired`, the child killed."""
    arguments, env = [str(word) for word in arguments], dict(os.environ if env is None else env)
    if not hasattr(os, "fork"):
        return subprocess.run([sys.executable, *arguments], env=env, cwd=cwd, input=input, text=True,
                              capture_output=True, timeout=timeout)
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in STREAMS]
        streams[0].write_text(input)
        status = _ask(_server(env.get("OMP_NUM_THREADS")), timeout, arguments=arguments, env=env,
                      cwd=str(cwd or Path.cwd()), streams=[str(path) for path in streams])
        said = [path.read_text() for path in streams[1:]]
    return subprocess.CompletedProcess(arguments, status, *said)


@cache
def _server(threads):
    """The server of this process for a number of threads, which Paddle fixes when it is loaded; ends with us."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    return subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            env=env | ({} if threads is None else {"OMP_NUM_THREADS": threads}))


def _ask(server, timeout, **request):
    """The exit status of one forked child, minus the signal where one ended it."""
    server.stdin.write(json.dumps(request).encode() + b"\n")
    server.stdin.flush()
    process = int(server.stdout.readline())
    if not select.select([server.stdout], [], [], timeout)[0]:
        os.kill(process, signal.SIGKILL)
        server.stdout.readline()
        raise subprocess.TimeoutExpired(request["arguments"], timeout)
    return int(server.stdout.readline())


def serve():
    """Load the libraries, fork for every request and answer with the child's id, then with how it ended; in the child,
    return the request."""
    sys.path[0] = str(ROOT)
    from asymmlib.base.startup import load_paddle
    load_paddle()
    import pandas  # noqa: F401
    for name in [name for name in sys.modules if name.partition(".")[0] == "asymmlib"]:
        del sys.modules[name]  # a child loads its own
    while line := sys.stdin.buffer.readline():
        process = os.fork()
        if not process:
            return json.loads(line)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    sys.exit()


def become(request):
    """Turn this process into the one that was asked for; returns (code, its namespace)."""
    for number, path in enumerate(request["streams"]):
        os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    name, *given = request["arguments"]
    if (name, *given[:1]) == ("-W", "ignore"):
        warnings.simplefilter("ignore")
        _, name, *given = given
    folder = str(Path(name).resolve().parent) if not name.startswith("-") else ""
    sys.path[:1] = [folder, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    module = sys.modules["__main__"] = ModuleType("__main__")
    if name == "-m":
        name, *given = given
        code = f"import runpy\nrunpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    elif name == "-c":
        code, *given = given
    else:
        code, module.__file__ = Path(name).read_text(encoding="utf-8"), name
    sys.argv = [name, *given]
    return compile(code, name if folder else "<string>", "exec"), vars(module)


if __name__ == "__main__":
    exec(*become(serve()))
