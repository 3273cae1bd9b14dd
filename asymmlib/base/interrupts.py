"""Ctrl-C and the other requests to end (SIGTERM, SIGHUP): obeyed at the next safe moment, the second time at once.

Python runs a signal's handler between any two of its steps, also within a function that C++ has called: an exception
raised there comes back with a C++ stack, or is lost in a destructor. So the handler only takes a note while the block
of `postponed` runs, and `check`, called once a batch, raises; anywhere else it raises at once.
"""
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Interrupted", "check", "ended_by_signals", "held", "ignore", "noted", "postponed", "promise"]

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(KeyboardInterrupt):
    """A signal other than Ctrl-C's asked for the end; `number` is the signal's.

    128 + number is what a shell expects as exit status.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _State:
    noted: int | None = None  # the first signal that came, until it is dealt with
    postponing = 0  # blocks of `postponed` that are open
    command = False  # whether this process is a command, which a second signal ends
    promise = "interrupted; run the same command again"


def promise(text: str | None = None) -> str:
    """What an interrupted command says, with `text` as the new wording from now on. Work that changes what is true
    (the first epoch, a run that was replaced) changes it."""
    if text is not None:
        _State.promise = f"interrupted; {text}"
    return _State.promise


def noted() -> int | None:
    """Number of the signal that asked for the end of this command, else None."""
    return _State.noted


def check() -> None:
    """Raise `KeyboardInterrupt`, or `Interrupted`, if a signal came while it could not be obeyed."""
    if _State.noted is not None:
        number = _State.noted
        if not _State.command:
            _State.noted = None
        raise _error(number)


def _error(number):
    """What to raise: for Ctrl-C Python's own error, which notebooks know by its name."""
    return KeyboardInterrupt() if number == signal.SIGINT else Interrupted(number)


def _handle(number, frame):
    again, _State.noted = _State.noted is not None, number
    if again and _State.command:
        os.write(2, f"{_State.promise} (ended at once)\n".encode("utf-8", "backslashreplace"))
        os._exit(128 + number)
    if again or not _State.postponing:
        if not _State.command:
            _State.noted = None
        raise _error(number)


@contextmanager
def ended_by_signals(text: str) -> Iterator[None]:
    """Run a command that SIGINT, SIGTERM and SIGHUP end: by `Interrupted`, or at once when they come twice.

    text: what it promises at first (see `promise`). Signals that are ignored (`nohup`, a shell's `&`) stay so. The
    handlers of before are put back.
    """
    _State.noted, _State.command = None, True
    promise(text)
    before = _install(SIGNALS, lambda handler: handler not in (signal.SIG_IGN, None))
    try:
        yield
    finally:
        _restore(before)
        _State.noted, _State.command = None, False


@contextmanager
def postponed() -> Iterator[None]:
    """Let a signal take effect only where `check` is called, and at the block's end; SIGINT also outside commands."""
    before = _install([signal.SIGINT], lambda handler: handler is signal.default_int_handler)
    _State.postponing += 1
    try:
        yield
    finally:
        _State.postponing -= 1
        _restore(before)
    check()


@contextmanager
def held() -> Iterator[None]:
    """Keep signals waiting while the block runs, and the handlers that Python has: libraries install their own."""
    if not _in_main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        _restore({number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_DFL)})
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def ignore() -> None:
    """A command that has said its last line cannot be interrupted any more; the interpreter only ends."""
    if _in_main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _install(numbers, wanted):
    """Set our handler where the present one is `wanted`; return those that were there."""
    before = {number: signal.getsignal(number) for number in numbers} if _in_main_thread() else {}
    before = {number: handler for number, handler in before.items() if wanted(handler)}
    for number in before:
        signal.signal(number, _handle)
    return before


def _restore(handlers):
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _in_main_thread():
    return threading.current_thread() is threading.main_thread()
