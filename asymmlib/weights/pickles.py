"""Read a pickle as data: a small stack machine that builds dicts, lists and tuples and calls nothing that a file names.

A pickle is a program. It may name any function of any module to be called with any arguments; here a name becomes a
`Name` and a call of it a `Made`, which hold what was said and do nothing. Only functions that the caller hands over in
`builders` are called: they make tensors and dicts. Nothing is imported. Source: Python's own `pickletools`, whose
`genops` takes a pickle apart and holds every length against the bytes that are left.
"""
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

__all__ = ["Made", "Name", "run_pickle"]

MOST_STEPS = 2_000_000  # a whole module with its optimiser has some ten thousand
KEYS = (str, int, float, bytes, bool, type(None))  # a tuple as a key could take forever to hash


class Name(NamedTuple):
    """A class or function that a pickle names: it is neither imported nor called."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Made:
    """What a pickle made by a name that is not called here: the arguments, the state and the entries it was given."""

    by: Any
    args: Any = ()
    state: Any = None
    items: list = field(default_factory=list)
    pairs: dict = field(default_factory=dict)


Builders = Mapping[tuple[str, str], Callable[..., Any]]


def run_pickle(file: BinaryIO, builders: Builders | None = None,
               persistent: Callable[[Any], Any] | None = None) -> Any:
    """Read one pickle from a binary file and return its value; the file then stands behind it.

    builders: {(module, name): function} that are called where the pickle says so. persistent: what stands for a
    persistent id. Raises `ValueError` for damage, and what the builders raise.
    """
    return _Machine(builders or {}, persistent).run(file)


class _Mark:
    """The place on the stack from which entries are collected."""


MARK = _Mark()
# opcodes whose value is their argument, and those that do nothing
PLAIN = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
         "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
         "BINUNICODE8", "FLOAT", "BINFLOAT"}
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": lambda: MARK,
    "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": list}
IDLE = {"PROTO", "FRAME", "READONLY_BUFFER"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    def __init__(self, builders: Builders, persistent: Callable[[Any], Any] | None) -> None:
        self.builders, self.persistent = builders, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file):
        for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                return self.pop()
            if step > MOST_STEPS:
                raise ValueError(f"the pickle has more than {MOST_STEPS:,} steps")
            self.step(opcode.name, argument)
        raise ValueError("the pickle does not end")

    def step(self, name, argument):
        if name in PLAIN:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name in TUPLES:
            self.stack.append(tuple(self.take(TUPLES[name])))
        elif "PUT" in name or name == "MEMOIZE":
            self.memo[len(self.memo) if argument is None else int(argument)] = self.top()
        elif "GET" in name:
            if int(argument) not in self.memo:
                raise ValueError(f"the pickle asks for thing {argument}, which it has not remembered")
            self.stack.append(self.memo[int(argument)])
        elif name not in IDLE:
            method = getattr(self, f"do_{name.lower()}", None)
            if method is None:
                raise ValueError(f"the pickle has an instruction that is not read here: {name}")
            method(argument)

    def pop(self):
        self.top()
        return self.stack.pop()

    def top(self):
        if not self.stack:
            raise ValueError("the pickle takes more from its stack than it has put there")
        return self.stack[-1]

    def take(self, count):
        """The last `count` values, in their order."""
        return [self.pop() for _ in range(count)][::-1]

    def marked(self):
        """All values above the last mark; the mark goes, too."""
        values = []
        while (value := self.pop()) is not MARK:
            values.append(value)
        return values[::-1]

    def do_pop(self, _):
        self.pop()

    def do_pop_mark(self, _):
        self.marked()

    def do_dup(self, _):
        self.stack.append(self.top())

    def do_tuple(self, _):
        self.stack.append(tuple(self.marked()))

    def do_list(self, _):
        self.stack.append(self.marked())

    do_frozenset = do_list

    def do_dict(self, _):
        self.stack.append(_paired({}, self.marked()))

    def do_append(self, _):
        self.extend([self.pop()])

    def do_appends(self, _):
        self.extend(self.marked())

    do_additems = do_appends

    def extend(self, values):
        target = self.top()
        if not isinstance(target, Made | list):
            raise ValueError(f"the pickle appends to a {type(target).__name__}")
        (target.items if isinstance(target, Made) else target).extend(values)

    def do_setitem(self, _):
        self.set(self.take(2))

    def do_setitems(self, _):
        self.set(self.marked())

    def set(self, values):
        target = self.top()
        if not isinstance(target, Made | dict):
            raise ValueError(f"the pickle sets entries of a {type(target).__name__}")
        _paired(target.pairs if isinstance(target, Made) else target, values)

    def do_global(self, argument):
        module, _, name = argument.partition(" ")
        self.stack.append(Name(module, name))

    def do_stack_global(self, _):
        module, name = self.take(2)
        self.stack.append(Name(str(module), str(name)))

    def do_reduce(self, _):
        self.stack.append(self.call(*self.take(2)))

    def call(self, function, args):
        builder = self.builders.get(function) if isinstance(function, Name) else None
        if builder is None:
            return Made(function, args)
        try:
            return builder(*args)
        except TypeError as error:  # other arguments than the real function takes
            raise ValueError(f"the pickle calls {function} with arguments of another kind ({error})") from error

    do_newobj = do_reduce

    def do_newobj_ex(self, _):
        function, args, more = self.take(3)
        self.stack.append(Made(function, (args, more)))

    def do_obj(self, _):
        function, *args = self.marked() or [None]
        self.stack.append(self.call(function, tuple(args)))

    def do_inst(self, argument):
        module, _, name = argument.partition(" ")
        self.stack.append(self.call(Name(module, name), tuple(self.marked())))

    def do_ext1(self, argument):
        self.stack.append(Name("extension", str(argument)))

    do_ext2 = do_ext4 = do_ext1

    def do_build(self, _):
        state, target = self.pop(), self.top()
        if isinstance(target, Made):
            target.state = state

    def do_persid(self, argument):
        if self.persistent is None:
            raise ValueError("the pickle refers to something outside of it")
        self.stack.append(self.persistent(argument))

    def do_binpersid(self, _):
        self.do_persid(self.pop())


def _paired(target, values):
    """Put key, value, key, value ... into a dict. A key that is no plain value gets a number instead."""
    if len(values) % 2:
        raise ValueError("the pickle has a key without a value")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[key if isinstance(key, KEYS) else Name("key", str(len(target)))] = value
    return target
