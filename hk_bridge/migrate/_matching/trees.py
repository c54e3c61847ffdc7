"""Haiku's trees by names like `params/net/linear/w`."""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

STATE, PARAMS = "state", "params"


def tree_of(leaves: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Haiku's params and state.

    >>> tree_of({"params/net/linear/w": 1, "state/net/counter": 2})
    ({'net/linear': {'w': 1}}, {'net': {'counter': 2}})
    """
    trees: dict[str, dict[str, Any]] = {PARAMS: {}, STATE: {}}
    for name, value in leaves.items():
        which, _, rest = name.partition("/")
        module, _, leaf = rest.rpartition("/")
        trees[which].setdefault(module, {})[leaf] = value
    return trees[PARAMS], trees[STATE]


def leaves_of(params: Any, state: Any) -> Iterator[tuple[str, Any]]:
    """The inverse of `tree_of`."""
    for which, tree in ((PARAMS, params), (STATE, state)):
        for module, bundle in tree.items():
            for leaf, value in bundle.items():
                yield f"{which}/{module}/{leaf}", value
