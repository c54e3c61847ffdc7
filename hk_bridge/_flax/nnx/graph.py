"""What an NNX module is: its graph, the leaves of it, and a copy bound to values.

Of NNX (since flax 0.12.2): `nnx.graph.flatten` and `unflatten` with `index_ref`, which
knows the nodes of what it makes, and `NodeDef`; `nnx.split` and `merge` are the same
without it.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import copy
import enum
import functools
from typing import Any
from typing import NamedTuple

from flax import nnx
from flax.nnx import graph as nnx_graph
import jax
import numpy as np

from hk_bridge import _errors
from hk_bridge._flax.host import MISSING
from hk_bridge._flax.nnx import told
from hk_bridge._flax.nnx.snapshot import Snapshot
from hk_bridge._layout import Where
from hk_bridge._layout import names
from hk_bridge._layout import states

_STATE = "_pytree__state"  # of each object of NNX
_CONSTANT = (tuple, type(None))
_REF: Any = getattr(jax, "Ref", ())  # not in older versions
_OF_NODES = ("type", "index", "num_attributes", "metadata")  # of nodes of a GraphDef


class Kind(enum.Enum):
    """What a leaf of a graph is."""

    VARIABLE = "kept in a collection"
    KEY = "the key of a stream, which each call feeds"
    COUNT = "the count of such a stream"
    ARRAY = "no Variable: a constant"


class Leaf(NamedTuple):
    """A leaf of the graph.

    Attributes:
      path: the attributes that lead to it.
      where: where a Variable is kept; None of all else.
      value: the Variable, or the array.
    """

    path: names.Path
    where: Where | None
    value: Any
    kind: Kind


class Graph:
    """The graph of an NNX module, as it is now. The module is not changed.

    Args:
      keep_rngs: whether streams of keys are Variables like others.

    Attributes:
      leaves: in the order of the graph.
    """

    def __init__(self, module: Any, keep_rngs: bool):
        objects = nnx_graph.RefMap()
        self._graphdef, flat = nnx_graph.flatten(module, ref_index=objects)
        self._objects = list(objects)
        self._keep_rngs = keep_rngs
        self._kinds: dict[type, tuple[Kind, str]] = {}
        self.leaves = self._leaves(flat)

    def _leaves(self, flat: Iterable[Any]) -> list[Leaf]:
        leaves: list[Leaf] = []
        for path, value in flat:
            cls = type(value)
            if cls not in self._kinds:
                if isinstance(value, nnx.Variable) and not issubclass(
                    cls, nnx.Variable
                ):
                    raise _errors.hijax_variable(path)
                self._kinds[cls] = _kind(cls, self._keep_rngs)
            kind, collection = self._kinds[cls]
            where = states.where_of(collection, path) if collection else None
            leaves.append(Leaf(path, where, value, kind))
        return leaves

    @property
    def parts(self) -> tuple[Any, ...]:
        """All that the module is but for the values of Variables, in plain parts."""
        nodes = [
            (type(node).__name__, *[_plain(getattr(node, n, None)) for n in _OF_NODES])
            for node in self._graphdef.nodes
        ]
        attributes = [
            (key, type(value).__name__, _plain(getattr(value, "value", None)))
            for key, value in self._graphdef.attributes
        ]
        arrays = [leaf.value for leaf in self.leaves if leaf.kind is Kind.ARRAY]
        return tuple(nodes), tuple(attributes), tuple(arrays)

    @property
    def statics(self) -> list[Any]:
        """The attributes that are no data, and not copied."""
        attributes = [value for _, value in self._graphdef.attributes]
        return [a.value for a in attributes if isinstance(a, nnx_graph.Static)]

    @functools.cached_property
    def types(self) -> set[type]:
        """The classes of the objects of the graph."""
        return {node.type for node in self._nodes if node.index is not None}

    @functools.cached_property
    def _nodes(self) -> list[Any]:
        nodes = self._graphdef.nodes
        return [node for node in nodes if isinstance(node, nnx_graph.NodeDef)]

    @functools.cached_property
    def kept(self) -> list[Leaf]:
        """The Variables that a collection has."""
        return [leaf for leaf in self.leaves if leaf.kind is Kind.VARIABLE]

    @functools.cached_property
    def keys(self) -> list[Leaf]:
        """The keys of the streams that each call feeds."""
        return [leaf for leaf in self.leaves if leaf.kind is Kind.KEY]

    def bind(self, values: Sequence[Any], held: Sequence[Any]) -> "Bound":
        """A copy of the module that has these Variables and arrays for its leaves.

        Args:
          held: what the Variables hold.
        """
        index = nnx_graph.IndexMap()
        module = nnx_graph.unflatten(self._graphdef, list(values), index_ref=index)
        return Bound(module, self, values, held, self.snapshot(index.values()))

    def of_values(self, values: Sequence[Any]) -> "Graph":
        """The graph with these Variables and arrays, of no objects yet."""
        other = copy.copy(self)
        other._objects = []
        other.leaves = [
            leaf._replace(value=value)
            for leaf, value in zip(self.leaves, values, strict=True)
        ]
        return other

    def snapshot(self, objects: Iterable[Any] | None = None) -> Snapshot:
        """What the objects of the graph hold, or those of a copy."""
        found = self._objects if objects is None else objects
        nodes = [node for node in found if type(node) in self.types]
        return Snapshot(nodes, self._may_change(nodes))

    def leaves_of(self, module: Any) -> list[Leaf]:
        """The leaves of a copy that has changed."""
        return self._leaves(nnx_graph.flatten(module)[1])

    def _may_change(self, nodes: Sequence[Any]) -> bool:
        """Whether there is a list, a dict or the like, besides these objects.

        Each object has a state of its own that is a tree to JAX."""
        others, generic = self._trees
        return not others == generic == sum(_STATE in vars(node) for node in nodes)

    @functools.cached_property
    def _trees(self) -> tuple[int, int]:
        """How many nodes are trees that may change, how many of these generic."""
        trees = [node.type for node in self._nodes if node.index is None]
        others = [tree for tree in trees if tree not in _CONSTANT]
        return len(others), trees.count(nnx_graph.GenericPytree)


class Bound:
    """A copy of a module, while it runs.

    Args:
      values: its Variables, and the arrays that are none.
      held: what these hold before it runs.
      snapshot: of its objects, before it runs.

    Attributes:
      late: the Variables that it has besides, by path, and what each held before.
    """

    def __init__(
        self,
        module: Any,
        graph: Graph,
        values: Sequence[Any],
        held: Sequence[Any],
        snapshot: Snapshot,
    ):
        self.module = module
        self.graph = graph
        self._values = values
        self._held = held
        self.snapshot = snapshot
        self.late: dict[names.Path, tuple[Leaf, Any]] = {}

    def leaves(self) -> Iterator[tuple[Leaf, Any]]:
        """The leaves now, and what each held before; MISSING of new ones."""
        before = zip(self.graph.leaves, self._values, self._held, strict=True)
        if self.snapshot.holds():
            for (path, where, _, kind), value, held in before:
                yield Leaf(path, where, value, kind), held
            yield from self.late.values()
            return
        known = {leaf.path: held for leaf, _, held in before}
        known |= {path: held for path, (_, held) in self.late.items()}
        for leaf in self.graph.leaves_of(self.module):
            if leaf.path in self.late:  # of a type that nobody may know yet
                leaf = leaf._replace(where=self.late[leaf.path][0].where)
            yield leaf, known.get(leaf.path, MISSING)


def remembered(module: Any, keep_rngs: bool, memory: dict[str, Any] | None) -> Graph:
    """The graph of `module`; that of the call before, if nothing has changed since.

    Args:
      memory: of the net that runs the module, and of nobody else.
    """
    found: Graph
    if memory is None:
        return Graph(module, keep_rngs)
    if "graph" in memory:
        found, snapshot = memory["graph"]
        if snapshot.holds():
            return found
    found = Graph(module, keep_rngs)
    memory["graph"] = found, found.snapshot()
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        return told.original(value)
    is_flaxs = type(value).__module__.startswith("flax.")
    return dict(value) if is_flaxs and isinstance(value, Mapping) else value


def _kind(cls: type, keep_rngs: bool) -> tuple[Kind, str]:
    """The kind of the leaves of a class, and the collection that has them."""
    if not issubclass(cls, nnx.Variable):
        return Kind.ARRAY, ""
    if keep_rngs or not issubclass(cls, nnx.RngState):
        return Kind.VARIABLE, states.collection_of(cls)
    return (Kind.KEY if issubclass(cls, nnx.RngKey) else Kind.COUNT), ""


def is_transient(cls: type) -> bool:
    """Whether Variables of this type are of one call: what `sow` and `perturb` make."""
    return issubclass(cls, nnx.Intermediate)


def held(variable: Any) -> Any:
    """What a Variable holds; of a `Ref` what that holds."""
    value = variable.get_raw_value()
    return variable.get_value() if isinstance(value, _REF) else value


def spec(variable: Any) -> Any:
    """The shapes and dtypes of the value of a Variable."""
    return jax.tree.map(_spec, held(variable))


def _spec(value: Any) -> Any:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return jax.ShapeDtypeStruct(np.shape(value), value.dtype)
    return value


def at(module: Any, path: names.Path) -> Any:
    """What is at `path` below `module`, or None."""
    for part in path:
        if isinstance(module, nnx.Pytree) and isinstance(part, str):
            module = getattr(module, part, None)
        else:
            try:
                module = module[part]
            except (KeyError, IndexError, TypeError):
                return None
    return module
