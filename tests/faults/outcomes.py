"""How injected faults ended, and the one line of JSON in which every script here reports them.

An end is good (survived) or one of `BAD`: lost (something that was there, or reported as done, is gone or torn),
crashed (a riddle in place of words that say what to do, or a process that died), hung (it did not end, or waited
without a word), silent (a wrong result, as if nothing had been).
"""
import json
from contextlib import contextmanager

BAD = ("lost", "crashed", "hung", "silent")


class Ended(AssertionError):
    """A bad end: one of `BAD`, and what was seen."""

    def __init__(self, how, text):
        super().__init__(f"{how}: {text}")
        self.how = how


def expect(condition, how, text):
    """Raise `Ended` unless the condition holds."""
    if not condition:
        raise Ended(how, text)


class Counts:
    """Counted ends of the trials of one fault."""

    def __init__(self):
        self.ends, self.notes = dict.fromkeys(("survived", *BAD), 0), []

    @property
    def injected(self):
        """Faults so far."""
        return sum(self.ends.values())

    def add(self, name, error=None):
        """Count one end: good, or as the error says; whatever is no `Ended` is a crash."""
        self.ends["survived" if error is None else getattr(error, "how", "crashed")] += 1
        self.notes += [] if error is None else [f"{name}: {type(error).__name__} {error}"[:600]]

    @contextmanager
    def trial(self, name):
        """One fault; an exception of the block is its bad end."""
        try:
            yield
        except Exception as error:  # this is what is looked for
            self.add(name, error)
        else:
            self.add(name)

    def report(self):
        """Print the line that `test_faults.py` reads."""
        print(json.dumps({"injected": self.injected, **self.ends, "notes": self.notes[:5]}))
