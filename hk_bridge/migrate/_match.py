"""Which leaf of a checkpoint with other names is which of a module: a proposal.

Modules are matched whole: a `weight` and a `bias` go to one module that makes both, of
fitting shapes. Of several, the one whose name has the most words in common is taken,
and then the one at the same place in the order in which both have their modules."""

from collections.abc import Iterator
from collections.abc import Mapping
import re
from typing import Any

from hk_bridge import _layout
from hk_bridge._layout import Where
from hk_bridge.migrate._table import LEFT_OUT
from hk_bridge.migrate._table import UNKNOWN
from hk_bridge.migrate._table import Row
from hk_bridge.migrate._table import Table
from hk_bridge.migrate._turns import in_order
from hk_bridge.migrate._turns import steps

Shape = tuple[int, ...]

# What PyTorch calls a leaf, and what linen does.
_SAME = {
    "weight": ("kernel", "scale", "embedding"),
    "bias": ("bias",),
    "gamma": ("scale",),
    "beta": ("bias",),
    "running_mean": ("mean",),
    "running_var": ("var",),
}
_COUNTERS = {"num_batches_tracked"}  # which linen has not


def propose(flat: Mapping[str, Any], specs: Mapping[Where, Shape]) -> Table:
    """A row for each leaf of `flat`.

    Args:
      flat: arrays by flat names.
      specs: the shapes of the leaves that the module makes.
    """
    given = _modules((name.rpartition("."), leaf.shape) for name, leaf in flat.items())
    made: dict[Any, dict[str, tuple[Where, Shape]]] = {}
    for where, shape in specs.items():
        made.setdefault(where.path[:-1], {})[str(where.path[-1])] = (where, shape)
    pairs = []
    for i, (prefix, leaves) in enumerate(given.items()):
        for j, (path, places) in enumerate(made.items()):
            rows = _rows(prefix, leaves, places)
            if rows is not None:
                order = abs(i / len(given) - j / len(made))
                pairs.append((-_alike(prefix, path), order, prefix, path, rows))
    taken: set[Any] = set()
    found: dict[str, Row] = {}
    for _, _, prefix, path, rows in sorted(pairs, key=lambda pair: pair[:2]):
        if (0, prefix) not in taken and (1, path) not in taken:
            taken |= {(0, prefix), (1, path)}
            found.update({row.given: row for row in rows})
    left = (
        LEFT_OUT if name.rpartition(".")[2] in _COUNTERS else UNKNOWN for name in flat
    )
    return Table(
        tuple(
            found.get(name, Row(name, unknown))
            for name, unknown in zip(flat, left, strict=True)
        )
    )


def _modules(leaves: Any) -> dict[str, dict[str, Shape]]:
    """The shapes of leaves by the name of their module, and their own."""
    modules: dict[str, dict[str, Shape]] = {}
    for (prefix, _, last), shape in leaves:
        modules.setdefault(prefix, {})[last] = tuple(shape)
    return modules


def _rows(
    prefix: str,
    leaves: Mapping[str, Shape],
    places: Mapping[str, tuple[Where, Shape]],
) -> list[Row] | None:
    """The rows of a module, if its leaves and its places are as many, and fit."""
    rows, used = [], set()
    for last, shape in leaves.items():
        name = f"{prefix}.{last}" if prefix else last
        if last in _COUNTERS:
            rows.append(Row(name, LEFT_OUT))
            continue
        for other in _SAME.get(last, (last,)):
            if other in places and other not in used:
                where, new = places[other]
                how = _how(last, other, shape, new)
                if how is not None:
                    rows.append(Row(name, _layout.spelled(where), how))
                    used.add(other)
                    break
        else:
            return None
    return rows if used == set(places) else None


def _how(last: str, other: str, shape: Shape, new: Shape) -> str | None:
    """How a leaf is turned; a kernel is, even if it is square."""
    if (last, other) == ("weight", "kernel") and len(shape) == len(new) > 1:
        axes = (*range(2, len(shape)), 1, 0)
        if tuple(shape[axis] for axis in axes) != new:
            return None
        return ".T" if len(shape) == 2 else f".transpose({axes})"
    if (last, other) == ("weight", "kernel") and len(shape) == 2:  # heads, split
        return f".T.reshape({new})" if in_order(shape[::-1], new) else None
    return "" if shape == new else steps(shape, new)


def _alike(prefix: str, path: _layout.Path) -> float:
    """How many words two names have in common, of all that they have."""
    one, two = (list(_words(text)) for text in (prefix, "/".join(map(str, path))))
    common, rest = 0, list(two)
    for word in one:
        if word in rest:
            rest.remove(word)
            common += 1
    return 2 * common / max(len(one) + len(two), 1)


def _words(text: str) -> Iterator[str]:
    yield from re.findall(r"[a-z]+|\d+", text.lower())
