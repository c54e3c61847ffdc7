"""Values that Haiku would take apart: every Mapping in its trees becomes dicts.

`haiku._src.data_structures.to_haiku_dict` does so wherever params and state enter or
leave a transform. A leaf of Flax that is a Mapping (a dataclass of chex, an
`OrderedDict`) is kept whole in a wrapper, which is a pytree with that leaf as its only
child.
"""

from collections.abc import Mapping
import sys
from typing import Any


class Whole:
    """A Mapping in Haiku's trees that is one leaf of Flax's.

    Attributes:
      value: the Mapping.
    """

    def __init__(self, value: Any):
        self.value = value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"

    def __eq__(self, other: object) -> Any:
        return self.value == other.value if isinstance(other, Whole) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


def keep(leaf: Any) -> Any:
    """`leaf` as it can live in Haiku's trees."""
    if not _is_taken_apart(leaf):
        return leaf
    register()
    return Whole(leaf)


def bare(value: Any) -> Any:
    """The inverse of `keep`."""
    return value.value if isinstance(value, Whole) else value


def _is_taken_apart(value: Any) -> bool:
    """Whether Haiku makes something else of it: dicts stay what they are."""
    if not isinstance(value, Mapping):
        return False
    return type(value) is not dict or any(map(_is_taken_apart, value.values()))


def register() -> None:
    """Tells JAX of `Whole`, if anybody has imported JAX."""
    jax = sys.modules.get("jax")
    if jax is not None and not _registered:
        jax.tree_util.register_pytree_node(
            Whole, lambda whole: ((whole.value,), None), lambda _, parts: Whole(*parts)
        )
        _registered.append(Whole)


_registered: list[type] = []
