"""The sequence of keys of a transform: how keys were drawn of it, and drawn before.

Private in Haiku (since dm-haiku 0.0.16): `haiku._src.base.current_frame().rng_stack`
and `next_rng_key_internal`.
"""

import collections
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import haiku as hk
from haiku._src import base

from hk_bridge._haiku import private

# While `hk.experimental.optimize_rng_use` counts the keys that code asks for, it puts
# another function there.
_NEXT_KEY = private.next_rng_key_internal


class Drawing(hk.PRNGSequence):
    """The sequence of a transform, which notes how keys are drawn of it."""

    def __init__(self, of: Any):
        self.of = of
        self.drawn: list[tuple[str, int]] | None = []

    def _note(self, how: str, number: int) -> None:
        if self.drawn is not None:
            self.drawn.append((how, number))

    def reserve(self, num: Any) -> None:
        self._note("reserve", num)
        self.of.reserve(num)

    def take(self, num: Any) -> Any:
        self._note("take", num)
        return self.of.take(num)

    def __next__(self) -> Any:
        self._note("next", 1)
        return next(self.of)

    next = __next__

    def reserve_up_to_full(self) -> None:
        self.drawn = None
        self.of.reserve_up_to_full()

    @property
    def internal_state(self) -> Any:
        self.drawn = None
        return self.of.internal_state

    def replace_internal_state(self, state: Any) -> None:
        self.drawn = None
        self.of.replace_internal_state(state)


class Drawn(hk.PRNGSequence):
    """Gives keys that were drawn before."""

    def __init__(self, keys: Sequence[Any]):
        self.left = collections.deque(keys)

    def reserve(self, num: Any) -> None:
        """They were."""

    def take(self, num: Any) -> Any:
        return tuple(next(self) for _ in range(num))

    def __next__(self) -> Any:
        return self.left.popleft()

    next = __next__

    def reserve_up_to_full(self) -> None:
        raise TypeError("A lifted transform takes keys as they are.")

    @property
    def internal_state(self) -> Any:
        raise TypeError("A lifted transform takes keys as they are.")

    def replace_internal_state(self, state: Any) -> None:
        raise TypeError("A lifted transform takes keys as they are.")


def sequence() -> Any:
    """The sequence of keys in force, or None."""
    return base.current_frame().rng_stack.peek()


def are_counted() -> bool:
    """Whether Haiku counts the keys that are drawn, for which it splits as many."""
    return getattr(base, "next_rng_key_internal", None) is not _NEXT_KEY


def nothing() -> None:
    """Gives back keys where none were drawn."""


def mark(keys: Any) -> Callable[[], None]:
    """What gives back the keys that are drawn of `keys` from now on."""
    if keys is None:
        return nothing
    state = _state_of(keys)
    return lambda: _restore(keys, state)


def _state_of(keys: Any) -> Any:
    """To ask for it is not noted."""
    if isinstance(keys, Drawn):
        return tuple(keys.left)
    if isinstance(keys, Drawing):
        return None if keys.drawn is None else [*keys.drawn], _state_of(keys.of)
    return keys.internal_state


def _restore(keys: Any, state: Any) -> None:
    if isinstance(keys, Drawn):
        keys.left = collections.deque(state)
    elif isinstance(keys, Drawing):
        keys.drawn = state[0]
        _restore(keys.of, state[1])
    else:
        keys.replace_internal_state(state)
