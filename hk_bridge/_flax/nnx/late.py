"""Variables that a call made at init, which the module itself does not have.

Haiku has them, so the copy that runs gets them where it has the object around them: an
object of NNX, a list or a dict. What is around others was itself made by a call, and
will be made anew."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from flax import nnx

from hk_bridge._flax.nnx import graph
from hk_bridge._layout import Where
from hk_bridge._layout import names
from hk_bridge._layout import states


def put_back(bound: graph.Bound, there: Mapping[Where, Any]) -> set[Where]:
    """Gives the copy the Variables that Haiku has besides those of the module.

    Returns:
      Those for which it has no place.
    """
    if len(bound.graph.kept) == len(there):
        return set()
    known = {leaf.where for leaf in bound.graph.kept}
    held = {leaf.path for leaf in bound.graph.leaves}
    lost: set[Where] = set()
    for where, value in sorted(there.items(), key=_in_order):
        parents = {
            Where(where.collection, where.path[:i]) for i in range(len(where.path))
        }
        if where in known or parents & known or where.path in held:
            continue
        variable = states.type_of(where.collection)(value)
        if _give(bound.module, where.path, variable):
            leaf = graph.Leaf(where.path, where, variable, graph.Kind.VARIABLE)
            bound.late[where.path] = leaf, variable.get_raw_value()
        else:
            lost.add(where)
    return lost


def _in_order(item: tuple[Where, Any]) -> list[Any]:
    """Numbers by size: lists grow at their end."""
    return [(isinstance(part, str), part) for part in item[0].path]


def _give(module: Any, path: names.Path, variable: Any) -> bool:
    """Whether the object at `path` but for its end could be given the Variable."""
    parent, name = graph.at(module, path[:-1]), path[-1]
    if isinstance(parent, (nnx.List, list)):
        return _append(parent, name, variable)
    if isinstance(parent, nnx.Pytree) and isinstance(name, str):
        parent.__setattr__(name, variable)
        return True
    if isinstance(parent, dict):
        parent[name] = variable
        return True
    return False


def _append(parent: Sequence[Any], name: names.Part, variable: Any) -> bool:
    if name != len(parent):
        return False
    rows: Any = parent
    rows.append(variable)
    return True
