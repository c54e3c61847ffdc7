"""The sequence of keys of a transform: how keys were drawn of it, and drawn before."""

import collections
from collections.abc import Sequence
from typing import Any

import haiku as hk


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


def state_of(keys: Any) -> Any:
    """What `restore` takes; to ask for it is not noted."""
    if isinstance(keys, Drawn):
        return tuple(keys.left)
    if isinstance(keys, Drawing):
        return None if keys.drawn is None else [*keys.drawn], state_of(keys.of)
    return keys.internal_state


def restore(keys: Any, state: Any) -> None:
    if isinstance(keys, Drawn):
        keys.left = collections.deque(state)
    elif isinstance(keys, Drawing):
        keys.drawn = state[0]
        restore(keys.of, state[1])
    else:
        keys.replace_internal_state(state)
