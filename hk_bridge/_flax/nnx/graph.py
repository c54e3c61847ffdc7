"""What an NNX module is: its graph, the leaves of it, and a copy bound to values.

Of NNX (since flax 0.12.2): `nnx.graph.flatten` and `unflatten` with `index_ref`, which
knows the nodes of what it makes, and `NodeDef`; `nnx.split` and `merge` are the same
without it.
"""

from collections.abc import Iterator
from collections.abc import Sequence
import functools
from typing import Any
from typing import NamedTuple
import weakref

from flax import nnx
from flax.nnx import graph as nnx_graph
from flax.nnx import variablelib
import jax
import numpy as np

from hk_bridge._flax.host import MISSING
from hk_bridge._layout import Where
from hk_bridge._layout import names


class Leaf(NamedTuple):
    """A leaf of the graph: a Variable, or an array that an attribute holds.

    Attributes:
      path: the attributes that lead to it.
      where: where it is kept; None of what no collection has: arrays that are no
        Variables, and the streams of keys that are fed at each call.
      value: the Variable, or the array.
    """

    path: names.Path
    where: Where | None
    value: Any

    @property
    def is_variable(self) -> bool:
        return isinstance(self.value, nnx.Variable)

    @property
    def is_stream(self) -> bool:
        return isinstance(self.value, nnx.RngState) and self.where is None


class Graph:
    """The graph of an NNX module, as it is now. The module is not changed.

    Args:
      keep_rngs: whether streams of keys are Variables like others.

    Attributes:
      leaves: in the order of the graph.
    """

    def __init__(self, module: Any, keep_rngs: bool):
        self._graphdef, flat = nnx_graph.flatten(module)
        self.keep_rngs = keep_rngs
        self.leaves = [_leaf(path, value, keep_rngs) for path, value in flat]

    @functools.cached_property
    def types(self) -> set[type]:
        """The classes of the objects of the graph."""
        nodes = self._graphdef.nodes
        return {node.type for node in nodes if isinstance(node, nnx_graph.NodeDef)}

    @functools.cached_property
    def kept(self) -> list[Leaf]:
        """The leaves that a collection has."""
        return [leaf for leaf in self.leaves if leaf.where is not None]

    @functools.cached_property
    def keys(self) -> list[Leaf]:
        """The keys of the streams that are fed."""
        return [leaf for leaf in self.leaves if _is_key(leaf)]

    def bind(self, values: Sequence[Any]) -> "Bound":
        """A copy of the module that has these Variables and arrays for its leaves."""
        index = nnx_graph.IndexMap()
        module = nnx_graph.unflatten(self._graphdef, list(values), index_ref=index)
        nodes = [n for n in index.values() if not isinstance(n, nnx.Variable)]
        plain = any(
            isinstance(node, nnx_graph.NodeDef) and node.index is None
            for node in self._graphdef.nodes
        )
        return Bound(module, self, values, None if plain else nodes)


class Bound:
    """A copy of a module, while it runs.

    Args:
      nodes: all objects of its graph; None if there are lists and dicts among them,
        which may change without a trace.
    """

    def __init__(
        self, module: Any, graph: Graph, values: Sequence[Any], nodes: list[Any] | None
    ):
        self.module = module
        self.graph = graph
        self._values = values
        self._before = [_held(value) for value in values]
        self._nodes = nodes
        self._objects: list[tuple[Any, dict[str, Any]]] = []

    def begin(self) -> None:
        """Notes what the objects hold, before anything runs."""
        if self._nodes is not None:
            self._objects = [(node, dict(vars(node))) for node in self._nodes]

    def leaves(self) -> Iterator[tuple[Leaf, Any]]:
        """The leaves now, and what each held before; MISSING of new ones."""
        leaves = self.graph.leaves
        if self._nodes is not None and all(map(_is_as_before, self._objects)):
            for leaf, value, before in zip(
                leaves, self._values, self._before, strict=True
            ):
                yield Leaf(leaf.path, leaf.where, value), before
            return
        held = {
            leaf.path: before for leaf, before in zip(leaves, self._before, strict=True)
        }
        for path, value in nnx_graph.flatten(self.module)[1]:
            leaf = _leaf(path, value, self.graph.keep_rngs)
            yield leaf, held.get(leaf.path, MISSING)


def _held(value: Any) -> Any:
    """What a leaf holds; of the key of a stream, which may be pending, nothing."""
    if isinstance(value, nnx.RngKey) and not hasattr(value, "_held"):
        return value.get_raw_value()
    if isinstance(value, nnx.RngKey):
        return None
    return value.get_raw_value() if isinstance(value, nnx.Variable) else value


def _is_as_before(pair: tuple[Any, dict[str, Any]]) -> bool:
    node, before = pair
    now = vars(node)
    if len(now) != len(before):
        return False
    return all(now.get(name, before) is value for name, value in before.items())


def _leaf(path: names.Path, value: Any, keep_rngs: bool) -> Leaf:
    fed = isinstance(value, nnx.RngState) and not keep_rngs
    if fed or not isinstance(value, nnx.Variable):
        return Leaf(tuple(path), None, value)
    return Leaf(tuple(path), Where(collection_of(type(value)), tuple(path)), value)


def _is_key(leaf: Leaf) -> bool:
    return leaf.where is None and isinstance(leaf.value, nnx.RngKey)


# The types that NNX has no name for.
_unnamed: weakref.WeakSet[type] = weakref.WeakSet()


def collection_of(cls: type) -> str:
    """The collection of a type of Variables: the name that NNX has for it.

    Of one that NNX has none for, that is the name of the class."""
    try:
        return variablelib.variable_name_from_type(cls)
    except ValueError:
        _unnamed.add(cls)
        return cls.__name__


def type_of(collection: str) -> Any:
    """The type of Variables of a collection, as far as it is known."""
    try:
        return variablelib.variable_type_from_name(collection)
    except ValueError:
        known = [cls for cls in _unnamed if cls.__name__ == collection]
        return known[0] if len(known) == 1 else nnx.Variable


def is_transient(cls: type) -> bool:
    """Whether Variables of this type are of one call: what `sow` and `perturb` make."""
    return issubclass(cls, nnx.Intermediate)


def spec(variable: Any) -> Any:
    """The shapes and dtypes of the value of a Variable."""
    return jax.tree.map(_spec, variable.get_raw_value())


def _spec(value: Any) -> Any:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return jax.ShapeDtypeStruct(np.shape(value), value.dtype)
    return value


def at(module: Any, path: names.Path) -> Any:
    """What is at `path` below `module`, or None."""
    for part in path:
        if isinstance(module, nnx.Module) and isinstance(part, str):
            module = getattr(module, part, None)
        else:
            try:
                module = module[part]
            except (KeyError, IndexError, TypeError):
                return None
    return module
