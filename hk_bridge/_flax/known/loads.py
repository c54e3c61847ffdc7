"""The names that code loads from outside of itself, read from its bytecode."""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import dis
import itertools
import re
import types
from typing import Any
import weakref

Chain = tuple[str, ...]

_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
_HELD = {"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF"}
_ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD"}
_NOTHING = {"CACHE", "EXTENDED_ARG", "NOP", "PRECALL"}
# After a name: an attribute of it is written. COPY is how `name.x += 1` starts.
_WRITTEN = {"STORE_ATTR", "DELETE_ATTR", "COPY"}
_WRITES = {"STORE_GLOBAL", "DELETE_GLOBAL"}
_WRITES_HELD = {"STORE_DEREF", "DELETE_DEREF"}
_FIELD = re.compile(r"\{[^{}]*\.(\w+)")  # `"{0.name}".format(module)`


@dataclasses.dataclass(frozen=True)
class Loads:
    """What code loads, with all code that it defines inside.

    Attributes:
      names: each global name, with the attributes that are loaded of it at once.
      held: the same by free variable, without its name; `()` if it is used as it is.
      imported: `(module, name)` of each `from module import name`.
      own: names of the bodies of classes, which come before global ones.
      writes: whether it may change what it loads, or loads what cannot be told.
      mentions: all names of globals and attributes, and texts that may be such; not
        those of keywords (`super().__init__(name=name)`), by which nothing is read.
      beginnings: of the names of attributes that `getattr` is asked for and the code
        does not say in full; `""` where it says nothing of one.
    """

    names: tuple[Chain, ...]
    held: Mapping[str, tuple[Chain, ...]]
    imported: tuple[tuple[str, str], ...]
    own: frozenset[str]
    writes: bool
    mentions: frozenset[str]
    beginnings: frozenset[str]

    def reaches(self, watched: frozenset[str]) -> bool:
        """Whether the code may mention one of these names."""
        begun = tuple(self.beginnings)
        return not watched.isdisjoint(self.mentions) or any(
            name.startswith(begun) for name in watched
        )


_memory: dict[int, tuple["weakref.ref[types.CodeType]", Loads]] = {}


def loads(code: types.CodeType) -> Loads:
    """What `code` loads, read once."""
    known = _memory.get(id(code))
    if known is not None and known[0]() is code:
        return known[1]
    number, found = id(code), _read(code)
    _memory[number] = weakref.ref(code, lambda _: _memory.pop(number, None)), found
    return found


def _read(code: types.CodeType) -> Loads:
    names: dict[Chain, None] = {}
    held: dict[str, dict[Chain, None]] = {name: {} for name in code.co_freevars}
    imported: dict[tuple[str, str], None] = {}
    beginnings: set[str] = set()
    writes, own = False, {"__annotations__"}
    for part, outer in _parts(code, frozenset(code.co_freevars)):
        found = [i for i in dis.get_instructions(part) if i.opname not in _NOTHING]
        module = ""
        own.update(i.argval for i in found if i.opname == "STORE_NAME")
        for at, instruction in enumerate(found):
            kind, name = instruction.opname, instruction.argval
            if kind in _GLOBAL:
                if name == "getattr":
                    beginnings.add(_beginning(found, at))
                chain, written = _attributes(found, at)
                names[name, *chain] = None
                writes |= written
            elif kind in _HELD and name in outer:
                chain, written = _attributes(found, at)
                held[name][chain] = None
                writes |= written
            elif kind == "IMPORT_NAME":
                module = name
                level, then = found[at - 2].argval, found[at + 1].opname
                writes |= level != 0 or then != "IMPORT_FROM"
            elif kind == "IMPORT_FROM":
                imported[module, name] = None
            else:
                writes |= kind in _WRITES or (kind in _WRITES_HELD and name in outer)
    codes = [part for part, _ in _parts(code, frozenset())]
    texts = {text for part in codes for text in _texts(_constants(part))}
    texts.update([name for text in texts for name in _FIELD.findall(text)])
    mentions = frozenset(texts).union(*[part.co_names for part in codes])
    each = {name: tuple(chains) for name, chains in held.items()}
    return Loads(
        names=tuple(names),
        held=each,
        imported=tuple(imported),
        own=frozenset(own),
        writes=writes,
        mentions=mentions,
        beginnings=frozenset(beginnings - {_SAID}),
    )


def _parts(
    code: types.CodeType, outer: frozenset[str]
) -> Iterator[tuple[types.CodeType, frozenset[str]]]:
    """`code` and the code inside it, each with those of its names that `code` holds."""
    yield code, outer
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            # A name in between that is a variable there is another variable.
            yield from _parts(constant, outer & frozenset(constant.co_freevars))


def _attributes(found: list[Any], at: int) -> tuple[Chain, bool]:
    """The attributes loaded of what is loaded at `at`, and whether one is written."""
    chain: list[str] = []
    for instruction in found[at + 1 :]:
        if instruction.opname not in _ATTRIBUTE:
            return tuple(chain), instruction.opname in _WRITTEN
        chain.append(instruction.argval)
    return tuple(chain), False


def _constants(code: types.CodeType) -> Iterator[Any]:
    """The constants that `code` loads, but for the names of keywords."""
    found = [i for i in dis.get_instructions(code) if i.opname not in _NOTHING]
    for instruction, then in itertools.zip_longest(found, found[1:]):
        # KW_NAMES has them before Python 3.13; since then they are loaded for CALL_KW.
        loads = instruction.opcode in dis.hasconst and instruction.opname != "KW_NAMES"
        if loads and (then is None or then.opname != "CALL_KW"):
            yield instruction.argval


def _texts(constants: Iterable[Any]) -> Iterator[str]:
    """The texts in constants of code, which may be rows of others."""
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, (tuple, frozenset)):
            yield from _texts(constant)


_SAID = "."  # no name begins so


def _beginning(found: list[Any], at: int) -> str:
    """How the name begins that the `getattr` at `at` looks up, if it is not said.

    What it looks at is a variable, or attributes of one, or a global name: a module of
    a library has no attribute that is watched."""
    rest = iter(found[at + 1 :])
    first = next((i for i in rest if i.opname != "PUSH_NULL"), None)
    if first is None or not first.opname.startswith("LOAD_"):
        return ""
    if first.opname in _GLOBAL:
        return _SAID
    after = (i for i in rest if i.opname not in _ATTRIBUTE)
    name, then = next(after, None), next(rest, None)
    if name is None or then is None or name.opname != "LOAD_CONST":
        return ""
    if not isinstance(name.argval, str) or then.opname in _ATTRIBUTE:
        return ""
    if then.opname == "CALL":
        return _SAID
    # Of a text that is filled in, the part before; the code may say the rest.
    return re.split("[%{]", name.argval)[0]
