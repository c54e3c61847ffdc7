"""The names of layers: which are there, and whether they are free."""

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Sequence
import difflib
import re
from typing import Any

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge.migrate._stack.rows import At
from hk_bridge.migrate._stack.rows import Module
from hk_bridge.migrate._stack.rows import Rows

_HOLE = "{}"
_NUMBER = "(0|[1-9][0-9]*)"


def one(name: Any) -> Module:
    """The parts of the name of one module."""
    if not isinstance(name, str) or not all(name.split("/")):
        raise _errors.stack_name(name)
    return tuple(name.split("/"))


def present(
    layers: str | Sequence[str], rows: Rows, collections: Collection[str], haikus: bool
) -> list[Module]:
    """The names of the layers that are in `rows`, in order."""
    rows = {at: leaf for at, leaf in rows.items() if at.collection in collections}
    if not isinstance(layers, str):
        names = _listed(layers)
        for name in names:
            if not any(at.module[: len(name)] == name for at in rows):
                text = "/".join(name)
                raise _errors.no_module(text, nearest(text, rows))
        return names
    numbers = _numbers(layers, rows)
    if not numbers:
        if not haikus:
            _check_level(layers, rows)
        raise _errors.no_layers(layers, nearest(layers, _holed(rows)))
    gap = min(set(range(len(numbers) + 1)) - numbers)
    if gap < len(numbers):
        first = re.sub("_?{}", "", layers)  # as Haiku's own loop names it
        held = ["/".join(at.module) for at in rows]
        unnumbered = any(f"{module}/".startswith(f"{first}/") for module in held)
        raise _errors.layer_gap(layers, gap, sorted(numbers), first * unnumbered)
    return absent(layers, len(numbers))


def absent(layers: str | Sequence[str], count: int) -> list[Module]:
    """The names that `count` layers get, in order."""
    if isinstance(layers, str):
        _pattern(layers)
        return [one(layers.replace(_HOLE, str(i))) for i in range(count)]
    names = _listed(layers)
    if len(names) != count:
        raise _errors.layers_count(len(names), count)
    return names


def check_free(
    targets: Iterable[Module], rest: Rows, moved: Sequence[Rows], haikus: bool
) -> None:
    """Refuses targets at which something is, above or below, that is not moved."""
    collections = {at.collection for rows in moved for at in rows}
    inside = {(at[0], at.module[:i]): at for at in rest for i in _ends(at.module)}
    # In Haiku's trees a leaf may have the name of a module.
    above = {} if haikus else {(at[0], at.path): at for at in rest}
    for target in targets:
        for collection in collections:
            ways = [(collection, target[:i]) for i in _ends(target)]
            taken = [inside.get(ways[-1]), *map(above.get, ways)]
            if any(taken):
                raise _errors.stack_taken(target, next(filter(None, taken)))


def _ends(module: Module) -> range:
    """Where the module ends, and each one that it is in."""
    return range(1, len(module) + 1)


def nearest(name: str, known: Iterable[Any]) -> str | None:
    """The most similar name of a module."""
    modules = {at.module[:end] for at in known for end in _ends(at.module)}
    texts = sorted("/".join(module) for module in modules)
    return next(iter(difflib.get_close_matches(name, texts, n=1, cutoff=0.3)), None)


def _listed(layers: Any) -> list[Module]:
    if not isinstance(layers, Sequence) or not layers:
        raise _errors.layers_name(layers)
    names = [one(name) for name in layers]
    for i, name in enumerate(names):
        for other in (*names[:i], *names[i + 1 :]):
            if name[: len(other)] == other:
                raise _errors.layers_overlap("/".join(name), "/".join(other))
    return names


def _pattern(layers: str) -> Module:
    if layers.count(_HOLE) != 1:
        raise _errors.layers_name(layers)
    return one(layers)


def _numbers(layers: str, rows: Iterable[At]) -> set[int]:
    """The numbers that are there in the place of `{}`."""
    parts = len(_pattern(layers))
    name = re.compile(_NUMBER.join(map(re.escape, layers.split(_HOLE))))
    found = (name.fullmatch("/".join(at.module[:parts])) for at in rows)
    return {int(match[1]) for match in found if match}


def _holed(rows: Iterable[At]) -> list[At]:
    """The modules, with `{}` in the place of the last number in one part of a name."""
    last = re.compile(r"\d+(?=\D*$)")
    return [
        at._replace(module=(*at.module[:i], last.sub(_HOLE, part)))
        for at in rows
        for i, part in enumerate(at.module)
        if last.search(part)
    ]


def _check_level(layers: str, rows: Iterable[At]) -> None:
    """Refuses Flax's trees that begin at another level than that of the name."""
    above = [at._replace(module=(at.collection, *at.module)) for at in rows]
    if _numbers(layers, above):
        collection, _, rest = layers.partition("/")
        if collection in _layout.FLAXS_OWN:
            raise _errors.layers_with_collection(layers, rest)
        raise _errors.layers_on_top(layers)
