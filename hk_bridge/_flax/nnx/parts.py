"""What an NNX module is but for its arrays, in plain parts, of which there are keys."""

from collections.abc import Mapping
from collections.abc import Sequence
import itertools
from typing import Any

from hk_bridge._flax.nnx import told

_OF_NODES = ("type", "num_attributes", "metadata")  # and `index`


def of(graphdef: Any) -> tuple[Any, ...]:
    """The parts of a GraphDef."""
    nodes = [
        (type(node).__name__, *[_plain(getattr(node, n, None)) for n in _OF_NODES])
        for node in graphdef.nodes
    ]
    indices = tuple([getattr(node, "index", None) for node in graphdef.nodes])
    attributes = [
        (key, type(value).__name__, _plain(getattr(value, "value", None)))
        for key, value in graphdef.attributes
    ]
    return _once(nodes), indices, _once(attributes)


def _plain(value: Any) -> Any:
    if isinstance(value, type):
        return told.original(value)
    is_flaxs = type(value).__module__.startswith("flax.")
    if is_flaxs and isinstance(value, Mapping):
        return tuple(itertools.chain.from_iterable(value.items()))
    return value


def _once(rows: Sequence[tuple[Any, ...]]) -> tuple[str, tuple[Any, ...]]:
    """Rows, each once if others are of the same objects, and which is where.

    A module of many layers says the same of each."""
    known: dict[Any, int] = {}
    distinct: list[tuple[Any, ...]] = []
    where: list[int] = []
    for row in rows:
        cells = [(*map(id, x),) if type(x) is tuple else id(x) for x in row]
        number = known.setdefault(tuple(cells), len(distinct))
        if number == len(distinct):
            distinct.append(row)
        where.append(number)
    return ",".join(map(str, where)), tuple(distinct)
