"""What a function returns, by shape and dtype alone. Nothing is allocated."""

from collections.abc import Callable
from typing import Any

import jax


def is_array(value: Any) -> bool:
    """Whether `value` has a shape and a dtype: an array, a tracer or a stand-in."""
    return hasattr(value, "shape") and hasattr(value, "dtype")


def evaluate(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """`jax.eval_shape`, with whatever is no array handed on as it is.

    >>> import jax, jax.numpy as jnp
    >>> f = lambda x, train: {"y": x.sum() if train else x}
    >>> evaluate(f, jax.ShapeDtypeStruct((2,), jnp.float32), train=True)
    {'y': ShapeDtypeStruct(shape=(), dtype=float32)}
    """
    leaves, treedef = jax.tree.flatten((args, kwargs))
    arrays = [leaf if is_array(leaf) else None for leaf in leaves]

    def call(arrays: list[Any]) -> Any:
        pairs = zip(leaves, arrays, strict=True)
        inputs = [leaf if array is None else array for leaf, array in pairs]
        args, kwargs = jax.tree.unflatten(treedef, inputs)
        return function(*args, **kwargs)

    return jax.eval_shape(call, arrays)
