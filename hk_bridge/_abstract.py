"""What a function returns, by shape and dtype alone. Nothing is allocated."""

from collections.abc import Callable
from typing import Any

import jax


def is_array(value: Any) -> bool:
    """Whether `value` has a shape and a dtype: an array, a tracer or a stand-in."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def can_be_traced(value: Any) -> bool:
    """Whether JAX takes `value` for an array: a number, too."""
    return is_array(value) or isinstance(value, (bool, int, float, complex))


def evaluate(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`jax.eval_shape`, with whatever is no array handed on as it is.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x, train: {"y": x.sum() if train else x, "text": "a"}
    >>> evaluate(f, jax.ShapeDtypeStruct((2,), jnp.float32), train=True)
    {'text': 'a', 'y': ShapeDtypeStruct(shape=(), dtype=float32)}
    """
    leaves, treedef = jax.tree.flatten((args, kwargs))
    arrays = [leaf if is_array(leaf) else None for leaf in leaves]
    made: list[Any] = []

    def call(arrays: list[Any]) -> list[Any]:
        args, kwargs = jax.tree.unflatten(treedef, filled(arrays, leaves))
        made[:] = jax.tree.flatten(function(*args, **kwargs))
        return [leaf if can_be_traced(leaf) else None for leaf in made[0]]

    specs = jax.eval_shape(call, arrays)
    return jax.tree.unflatten(made[1], filled(specs, made[0]))


def filled(part: Any, full: Any) -> Any:
    """The tree `part`, with what `full` has in the places of None."""
    fill = lambda x, y: y if x is None else x
    return jax.tree.map(fill, part, full, is_leaf=lambda x: x is None)
