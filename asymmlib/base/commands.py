"""How a command line of this project runs: its options, its errors in one line, and what it says when it is ended."""
import argparse
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from asymmlib.base import interrupts
from asymmlib.base.extras import unmet
from asymmlib.base.startup import load_paddle

__all__ = ["Commands", "Once", "count", "make_parser", "run_command"]

Commands = Mapping[str, tuple[Callable, Callable]]  # {name: (function that adds options, function that does it)}


class Once(argparse.Action):
    """An option, or several names of one, that may be given one time: which of two values counts is not guessed."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        known = getattr(namespace, self.dest, None)
        if values is None:  # an optional word that is not there
            return
        if known is not None:
            names = " or ".join([*self.option_strings] or [str(self.metavar)])
            parser.error(f"{known!r} and {values!r} are two answers to one question ({names}): give one of them")
        setattr(namespace, self.dest, values)


def count(text: str) -> int:
    """The type of an option that counts something: an integer of at least 1."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no integer of at least 1")
    return number


def run_command(commands: Commands, program: str, description: str, arguments: list[str] | None = None,
                promises: Mapping[str, str] | None = None) -> int:
    """Run one of `commands`; return the exit status.

    A user's mistake, and a package that an extra brings, end in one line on stderr and exit status 2. promises:
    {name: what is true of a command that a signal ended}; its exit status is then 128 + the signal's number.
    """
    for stream in (sys.stdout, sys.stderr):  # a console that cannot show a class's name gets its code points
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    with interrupts.ended_by_signals("run the same command again"):
        try:
            options = make_parser(commands, program, description).parse_args(arguments)
            interrupts.promise((promises or {}).get(options.command))
            load_paddle()
            options.run(options)
            interrupts.check()
        except BaseException as error:
            if interrupts.noted() is None and not isinstance(error, KeyboardInterrupt):
                return _told(error)
            print(interrupts.promise(), file=sys.stderr, flush=True)  # whatever C++ made of the signal on its way
            number = error.number if isinstance(error, interrupts.Interrupted) else int(signal.SIGINT)
            return 128 + (interrupts.noted() or number)
    return 0


def make_parser(commands: Commands, program: str, description: str) -> argparse.ArgumentParser:
    """The parser of `python -m PROGRAM COMMAND`, or of the script PROGRAM where that was called.

    A command's help is the docstring of the function that does it.
    """
    called = Path(sys.argv[0]).stem == program
    parser = argparse.ArgumentParser(program if called else f"python -m {program}", description=description)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (add_options, run) in commands.items():
        text = (run.__doc__ or "").strip()
        command = parsers.add_parser(name, help=text.partition("\n")[0].rstrip("."), description=text,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
        add_options(command)
        command.set_defaults(run=run, command=name)
    return parser


def _told(error):
    """Print the line of a user's mistake and return its exit status; raise again what is none."""
    reason = str(error)
    if isinstance(error, ModuleNotFoundError):
        reason = unmet(error)
    elif not isinstance(error, ValueError | ArithmeticError | RuntimeError | OSError):  # OSError: files, permissions
        raise error
    if not reason:  # a module of ours that is missing
        raise error
    print(f"error: {reason}", file=sys.stderr)
    return 2
