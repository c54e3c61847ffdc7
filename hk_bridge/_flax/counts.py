"""How many keys a Scope and its children have drawn, of which stream.

Private in Flax: `flax.core.scope.child_rng_token`, by which a Scope files what its
children count.
"""

from collections.abc import Mapping
from typing import Any

from flax.core import scope as core_scope

Counts = tuple[tuple[tuple[str, ...], int], ...]  # by path and stream


def read(counters: Mapping[Any, Any], path: tuple[str, ...] = ()) -> Counts:
    """How many keys were drawn, of those streams that one was drawn of."""
    found: list[Any] = []
    for name, count in counters.items():
        if isinstance(count, dict):
            found.extend(read(count, (*path, name[1])))
        elif count:
            found.append(((*path, name), count))
    return tuple(sorted(found))


def write(counters: Any, counts: Counts) -> None:
    """Has the counters say these counts."""
    for (*path, stream), count in counts:
        level = counters
        for name in path:
            level = level.setdefault((core_scope.child_rng_token, name), {})
        level[stream] = count
