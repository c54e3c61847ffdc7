"""Code that must not ask Haiku for anything."""

from collections.abc import Callable
from typing import Any

import haiku as hk
from haiku._src import base
import jax


class _NoKeys(hk.PRNGSequence):
    """Keys that are an error to draw, where None would be an answer."""

    def __init__(self) -> None:
        pass

    def __next__(self) -> jax.Array:
        raise ValueError("There are no keys.")

    next = __next__


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, where it is an error to ask Haiku for parameters, state or keys."""

    def without_keys(*args: Any) -> Any:
        with base.current_frame().rng_stack(_NoKeys()):
            return function(*args)

    def run(*args: Any) -> Any:
        f = hk.transform_with_state(without_keys)
        result, state = f.apply({}, {}, None, *args)
        if state:
            raise ValueError("There is no place for state.")
        return result

    return run
