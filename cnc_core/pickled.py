"""Pickles read as data: a machine for their opcodes that imports nothing and calls nothing.

What a pickle asks to be called becomes a :class:`Call`, a description. Names are allowed by an exact list; any
other is refused as code. Time and memory are bounded whatever the pickle says.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from .pickle_names import ALLOWED

MAX_BYTES = 16 << 20
"""Bytes of one pickle. That of a Stable Diffusion checkpoint with its optimizer's state has less than 2 MB."""

MAX_OPCODES = 1_000_000
"""Opcodes of one pickle. A tensor takes about 45, which leaves room for 20,000 of them."""


class Refused(Exception):
    """A file that is not read; the message goes on where a sentence has named the file."""


@dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A class or function that a pickle names, with its module: a name and nothing else."""

    name: str


@dataclass(eq=False, slots=True)
class Call:
    """An object that a pickle describes by a call.

    name: what would be called, with its module. args: with what, as it stands in the pickle. entries: what would be
    set as items of the result under names. state: what would be given to the result as its state.
    """

    name: str
    args: tuple[Any, ...]
    entries: dict[str, Any] = field(default_factory=dict)
    state: Any = None


class Stream(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class _Limited:
    """A stream that ends after so many bytes, before it reads them."""

    def __init__(self, stream: Stream, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, size: int) -> bytes:
        self._take(size)
        return self._stream.read(size)

    def readline(self) -> bytes:
        line = self._stream.readline(self._left + 1)
        self._take(len(line))
        return line

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise Refused(f"holds a pickle of more than {MAX_BYTES} bytes, which is more than weights need")


def read_pickle(
    stream: Stream,
    allowed: Callable[[str], bool] | None = None,
    persistent: Callable[[Any], Any] = lambda reference: None,
) -> Any:
    """Read one pickle, of any protocol, up to its end.

    Args:
        stream: stands behind the pickle's last byte afterwards.
        allowed: whether a class or function may be named, by ``module.name``; those of :mod:`.pickle_names` without it.
        persistent: makes what stands for a reference to what lies outside of the pickle.

    Returns:
        Numbers, strings, bytes, lists, tuples and dicts, with :class:`Name` and :class:`Call` for the rest. Dicts keep
        the entries whose keys are strings or small integers, which become strings.

    Raises:
        Refused: a name that is not allowed, or more than weights need.
        Exception: of any kind, for bytes that are not a pickle.
    """
    machine = _Machine(allowed or ALLOWED.__contains__, persistent)
    source: Any = _Limited(stream, MAX_BYTES)  # all of a file that the disassembler uses
    for count, (opcode, argument, _) in enumerate(pickletools.genops(source)):
        if count == MAX_OPCODES:
            raise Refused(f"holds a pickle of more than {MAX_OPCODES} opcodes, which is more than weights need")
        machine.step(opcode.name, argument)
    return machine.stack.pop()


class _Machine:
    """The stack and the memo."""

    def __init__(self, allowed: Callable[[str], bool], persistent: Callable[[Any], Any]) -> None:
        self.stack: list[Any] = []
        self.persistent = persistent
        self._allowed = allowed
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self.push(argument)
        elif opcode in _CONSTANTS:
            self.push(_CONSTANTS[opcode])
        elif opcode in _PUT:
            if argument >= 1 << 32:  # integers of any size can be made to collide in the memo
                raise ValueError(f"a place {argument} in the memo")
            self._memo[argument] = self.stack[-1]
        elif opcode in _GET:
            self.push(self._memo[argument])
        elif opcode not in _NOTHING:
            _STEPS[opcode](self, argument)

    def named(self, name: str) -> Name:
        """Raises Refused for a name that is not allowed."""
        if name.startswith("__builtin__."):  # as Python 2 calls it
            name = name.replace("__builtin__", "builtins", 1)
        if not self._allowed(name):
            shown = "".join(letter if letter.isprintable() else "?" for letter in name[:100])
            raise Refused(
                f"is a pickle with code in it: it asks for {shown}, which was refused and not executed; weights need "
                "no code, do not trust this file"
            )
        return Name(name)

    def mark(self) -> None:
        self._marked.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self._marked.pop()
        return items

    def call(self, arguments: Any) -> None:
        """Put a description of the call in place of what is called."""
        called = self.stack.pop()
        if not isinstance(called, Name):
            raise Refused(
                f"is a pickle with code in it: it calls a {type(called).__name__} that it made, which was refused and "
                "not executed; weights need no code, do not trust this file"
            )
        if not isinstance(arguments, tuple):  # a list could hold the call itself
            raise ValueError("arguments that are no tuple")
        self.push(Call(called.name, arguments))

    def build(self, state: Any) -> None:
        if isinstance(self.stack[-1], Call):
            self.stack[-1].state = state

    def extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        mapping = self.stack[-1]
        entries = mapping.entries if isinstance(mapping, Call) else mapping
        for key, value in zip(items[::2], items[1::2], strict=True):
            # No others are hashed: tuples could nest without an end, large integers collide.
            if type(key) is str:
                entries[key] = value
            elif type(key) is int and abs(key) < 1 << 32:
                entries[str(key)] = value

    def instance(self, name: str) -> None:
        """Protocol 0's way to make an object: the arguments are above the mark."""
        arguments = self.pop_mark()
        self.push(self.named(name))
        self.call(tuple(arguments))

    def object(self) -> None:
        """Protocol 1's way: what is called lies below the arguments, above the mark."""
        called, *arguments = self.pop_mark()
        self.push(called)
        self.call(tuple(arguments))

    def memoize(self) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def last(self, count: int) -> list[Any]:
        """Take the last entries off the stack."""
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError(f"{count} entries expected on the stack, found {len(items)}")
        del self.stack[-count:]
        return items


def _dict(machine: _Machine, items: list[Any]) -> None:
    machine.push({})
    machine.set_items(items)


_LITERALS = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES "
    "SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
_NOTHING = frozenset({"PROTO", "FRAME", "STOP"})

_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": lambda machine, _: machine.mark(),
    "POP": lambda machine, _: machine.stack.pop() if machine.stack else machine.pop_mark(),
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.push(machine.stack[-1]),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(None),  # a set holds no weights
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.push(tuple(machine.last(1))),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.last(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.last(3))),
    "DICT": lambda machine, _: _dict(machine, machine.pop_mark()),
    "FROZENSET": lambda machine, _: machine.push(machine.pop_mark() and None),
    "APPEND": lambda machine, _: machine.extend(machine.last(1)),
    "APPENDS": lambda machine, _: machine.extend(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.pop_mark(),
    "SETITEM": lambda machine, _: machine.set_items(machine.last(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "MEMOIZE": lambda machine, _: machine.memoize(),
    "GLOBAL": lambda machine, name: machine.push(machine.named(name.replace(" ", "."))),
    "STACK_GLOBAL": lambda machine, _: machine.push(machine.named(".".join(machine.last(2)))),
    "REDUCE": lambda machine, _: machine.call(*machine.last(1)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.last(1)),
    "NEWOBJ_EX": lambda machine, _: machine.call(machine.last(2)[0]),
    "INST": lambda machine, name: machine.instance(name.replace(" ", ".")),
    "OBJ": lambda machine, _: machine.object(),
    "BUILD": lambda machine, _: machine.build(*machine.last(1)),
    "PERSID": lambda machine, argument: machine.push(machine.persistent(argument)),
    "BINPERSID": lambda machine, _: machine.push(machine.persistent(*machine.last(1))),
}
