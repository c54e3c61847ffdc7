"""Haiku's initialisers, `(shape, dtype)`, which draw from the keys of a transform."""

from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from typing import Any

import haiku as hk
from haiku._src import base
import jax
import numpy as np

from hk_bridge import _errors
from hk_bridge._haiku.apart import is_apart
from hk_bridge._haiku.context import transforms

Initializer = Callable[[Sequence[int], Any], Any]

# The classes of `hk.initializers`.
_CLASSES = tuple(x for x in vars(hk.initializers).values() if isinstance(x, type))


def is_of_haiku(value: Any) -> bool:
    """Whether `value` is an instance of a class of `hk.initializers`."""
    return isinstance(value, _CLASSES)


def is_class_of_haiku(value: Any) -> bool:
    """Whether `value` is such a class itself."""
    return isinstance(value, type) and issubclass(value, _CLASSES)


def initialize(w: Initializer, key: Any, shape: Sequence[int], dtype: Any) -> Any:
    """What `w(shape, dtype)` makes if Haiku's keys come from `key`.

    It runs in a transform of its own, so it may run anywhere."""
    has_key = isinstance(key, (jax.Array, np.ndarray))  # NNX may hand over a stream
    return hk.transform(lambda: _alone(w, shape, dtype)).apply(
        {}, key if has_key else None
    )


def _alone(w: Initializer, shape: Sequence[int], dtype: Any) -> Any:
    """`w(shape, dtype)`, in a transform that has neither parameters nor state."""
    depth = transforms()

    def refuse(make: Any, shape: Any, dtype: Any, init: Any, context: Any) -> Any:
        if transforms() == depth:  # and not in a transform that `w` has itself
            raise _errors.initializer_asks(w, context.full_name)
        return make(shape, dtype, init)

    with hk.custom_creator(refuse, params=True, state=True):
        return w(shape, dtype)


def draws(w: Initializer, shape: Sequence[int], dtype: Any) -> bool:
    """Whether `w(shape, dtype)` draws a key from Haiku. Nothing is allocated."""
    found: list[bool] = []

    def run() -> Any:
        before = jax.tree.leaves(hk.maybe_get_rng_sequence_state())
        made = _alone(w, shape, dtype)
        after = jax.tree.leaves(hk.maybe_get_rng_sequence_state())
        found.append(list(map(id, before)) != list(map(id, after)))
        return made

    jax.eval_shape(lambda: hk.transform(run).apply({}, jax.random.key(0)))
    return found[-1]


def identity(w: Initializer) -> Hashable:
    """What is equal for equal initialisers: of Haiku's own, their numbers."""
    if type(w) in _CLASSES:
        held = vars(w).items()
        if all(_is_plain(value) for _, value in held):
            return type(w), *[(name, repr(value)) for name, value in held]
    return w if isinstance(w, Hashable) else id(w)


def _is_plain(value: Any) -> bool:
    if type(value) in (tuple, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (int, float, complex, str, np.generic))


def is_for_a_key(error: Exception) -> bool:
    """Whether Haiku raised `error` for want of a key, which its text alone tells."""
    return isinstance(error, ValueError) and "non-None PRNGKey" in str(error)


@contextlib.contextmanager
def drawing_from(key: Any) -> Iterator[None]:
    """Where Haiku's keys come from `key`; with None, there are none.

    It is `hk.with_rng`, which takes a key alone, and refuses to be inside a transform
    of JAX if `hk.experimental.check_jax_usage` wants it."""
    if is_apart():
        yield
        return
    sequence: Any = None if key is None else hk.PRNGSequence(key)
    with base.current_frame().rng_stack(sequence):
        yield


def shapes_alone() -> contextlib.AbstractContextManager[None]:
    """For code run by shapes alone: a key of Haiku's own would get into the trace."""
    with jax.ensure_compile_time_eval():  # no equation of a program
        key = jax.random.key(0)
    return drawing_from(key)
