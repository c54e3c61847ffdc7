"""The states of NNX: which collection has a Variable, and a state as variables.

`flax.nnx` is not imported: who has a state at hand has done so."""

from collections.abc import Mapping
import sys
from typing import Any
import weakref

from hk_bridge import _errors
from hk_bridge._layout import names
from hk_bridge._layout import tree as trees
from hk_bridge._layout.where import Where


def is_state(value: Any) -> bool:
    """Whether `value` is an `nnx.State`."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(value, nnx.State)


def opened(variables: Any) -> Any:
    """The variables of an `nnx.State`, `{collection: nested dict}`; others as they are.

    Keys and counts of streams are left out, as they are never kept."""
    if not is_state(variables):
        return _with_open_collections(variables)
    nnx: Any = sys.modules["flax.nnx"]
    found: dict[Where, Any] = {}
    for path, leaf in nnx.to_flat_state(variables):
        if isinstance(leaf, nnx.Variable) and not isinstance(leaf, nnx.RngState):
            found[where_of(collection_of(type(leaf)), path)] = leaf.get_raw_value()
    return trees.insert({}, found)


def _with_open_collections(variables: Any) -> Any:
    """`variables` with a plain tree for each collection that is an `nnx.State`."""
    if not trees.are_variables(variables):
        return variables
    if not any(map(is_state, variables.values())):
        return variables
    return {c: pure(t) if is_state(t) else t for c, t in variables.items()}


def pure(state: Any) -> dict[Any, Any]:
    """The values of an `nnx.State`, of whatever types, as a nested dict."""
    nnx: Any = sys.modules["flax.nnx"]
    found: dict[Where, Any] = {}
    for path, leaf in nnx.to_flat_state(state):
        value = leaf.get_raw_value() if isinstance(leaf, nnx.Variable) else leaf
        found[where_of("", path)] = value
    tree: dict[Any, Any] = trees.insert({"": {}}, found)[""]
    return tree


def filled(state: Any, variables: Mapping[str, Any]) -> Any:
    """An `nnx.State` like `state`, with the values that `variables` have."""
    nnx: Any = sys.modules["flax.nnx"]
    leaves = []
    places = set()
    for path, leaf in nnx.to_flat_state(state):
        if isinstance(leaf, nnx.Variable):
            where = where_of(collection_of(type(leaf)), path)
            places.add(where)
            value = trees.find(variables, where, leaf.get_raw_value())
            leaf = type(leaf).from_metadata(value, leaf.get_metadata())
        leaves.append((path, leaf))
    _check_no_more(variables, places)
    return nnx.from_flat_state(leaves)


def _check_no_more(variables: Mapping[str, Any], places: set[Where]) -> None:
    """Refuses leaves that have no place, in the collections that have some."""
    there = {where.collection for where in places}
    for (collection, path), _ in trees.leaves(variables):
        above = (Where(collection, path[: end + 1]) for end in range(len(path)))
        if collection in there and places.isdisjoint(above):
            raise _errors.not_in_like(collection, path)


# The types that NNX has no name for.
_unnamed: weakref.WeakSet[type] = weakref.WeakSet()


def collection_of(cls: type) -> str:
    """The collection of a type of Variables: the name that NNX has for it.

    Of one that NNX has none for, that is the name of the class."""
    nnx: Any = sys.modules["flax.nnx"]
    try:
        return str(nnx.variablelib.variable_name_from_type(cls))
    except ValueError:
        _unnamed.add(cls)
        return cls.__name__


def type_of(collection: str) -> Any:
    """The type of Variables of a collection, as far as it is known."""
    nnx: Any = sys.modules["flax.nnx"]
    try:
        return nnx.variablelib.variable_type_from_name(collection)
    except ValueError:
        known = [cls for cls in _unnamed if cls.__name__ == collection]
        return known[0] if len(known) == 1 else nnx.Variable


def where_of(collection: str, path: names.Path) -> Where:
    """Where the Variable at `path` of the graph is kept."""
    if not _PARTS.issuperset(map(type, path)):
        path = tuple([_spelled(part) for part in path])
    return Where(collection, path)


_PARTS = frozenset([str, int])


def _spelled(part: Any) -> names.Part:
    """A part of a path as it is kept: keys that are neither str nor int as text."""
    if isinstance(part, str):
        return str.__str__(part)
    return part if type(part) is int else repr(part)
