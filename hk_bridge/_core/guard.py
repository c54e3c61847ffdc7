"""What Haiku calls an argument, and what layers of `hk_bridge.nn` refuse for it."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import inspect
import numbers
from typing import Any

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _spelling


class Guard:
    """Which arguments a layer takes without their names: those that Haiku's has, too.

    Of a layer that Haiku lacks, that is all."""

    def __init__(self, flax: Any, haiku: Any = None):
        self.name = flax.__name__
        self._built = _Order(flax.__init__, haiku and haiku.__init__)
        called = not _flax.is_cell(flax)  # those have Haiku's order
        self._called = _Order(flax.__call__, called and haiku and haiku.__call__)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuses arguments of the constructor that would mean something else."""
        given = {**dict(zip(self._built.flax, args, strict=False)), **kwargs}
        size = given.get("kernel_size")
        if isinstance(size, numbers.Integral):
            raise _errors.one_kernel_size(self.name, given.get("features"), int(size))
        self._built.check(self.name, args)

    def check_call(self, args: Sequence[Any]) -> None:
        """Refuses arguments of a call that would mean something else."""
        self._called.check(f"{self.name}(...)", args)

    def refuse(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuses places, and names that only Haiku has, of a class of keywords."""
        explained = list(_lines(kwargs.items(), self._built.flax))
        if explained:
            raise _errors.haiku_names(self.name, explained)
        self._built.check(self.name, args, 0)


class _Order:
    """The arguments of a function in Flax and in Haiku, and how many are the same."""

    def __init__(self, flax: Any, haiku: Any):
        self.flax, variadic = _names(flax)
        self._haiku, _ = _names(haiku) if haiku else ([], False)
        self._free = not haiku or variadic
        pairs = zip(self.flax, self._haiku, strict=False)
        same = [_is_one(*pair, self.flax) for pair in pairs]
        self._shared = [*same, False].index(False)

    def check(self, name: str, args: Sequence[Any], most: int | None = None) -> None:
        shared = self._shared if most is None else most
        rest = args[shared:]
        if self._free or not rest:
            return
        named = dict(zip(self.flax[shared:], rest, strict=False))
        line = _flax.line(name, tuple(args[:shared]), named)
        theirs = zip(self._haiku[shared:], rest, strict=False)
        lines = list(_lines(theirs, _spelling.ALL))
        raise _errors.without_names(name, shared, len(args), line, lines)


def _names(function: Any) -> tuple[list[str], bool]:
    """The arguments that have a place, and whether there may be any number."""
    parameters = list(inspect.signature(function).parameters.values())[1:]
    kinds = [p.kind for p in parameters]
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return named, inspect.Parameter.VAR_POSITIONAL in kinds


def _is_one(flax: str, haiku: str, known: Collection[str]) -> bool:
    return flax in (haiku, _spelling.of_argument(haiku, known))


def explain(
    error: TypeError, kwargs: Mapping[str, Any], known: Collection[str]
) -> None:
    """Adds to an error about keywords what those of Haiku are called in Flax."""
    for line in _lines(kwargs.items(), known):
        error.add_note(_errors.note_haiku_name(line))


def _lines(given: Iterable[tuple[str, Any]], known: Collection[str]) -> Iterable[str]:
    """For each argument that has another name in Haiku: what to write."""
    for name, value in given:
        shown = _flax.line("", (value,), {})[1:-1]
        line = None if name in known else _spelling.line(name, shown, known)
        if line is not None:
            yield f"Haiku's {name}={shown}: {line}"
