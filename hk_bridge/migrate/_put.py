"""The leaves that were read, checked, cast and put where they are wanted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge.migrate._format import PLAIN
from hk_bridge.migrate._format import is_number
from hk_bridge.migrate._shardings import check_bits
from hk_bridge.migrate._shardings import sharding_of


def put(tree: Any, path: _layout.Path, shardings: Any, dtype: Any) -> Any:
    """`tree` in new plain dicts, its arrays of `dtype` and where `shardings` wants."""
    if _layout.is_level(tree):
        return {k: put(v, (*path, k), shardings, dtype) for k, v in tree.items()}
    leaf = np.asarray(tree) if isinstance(tree, np.generic) else tree
    if isinstance(leaf, np.ndarray) and is_number(leaf.dtype):
        leaf = cast(leaf, dtype)
        if shardings is None:
            return leaf
        return jax.device_put(leaf, sharding_of(shardings, path, leaf))
    if isinstance(leaf, jax.Array):
        return cast_on_device(leaf, path, dtype)
    if isinstance(leaf, list):  # as Orbax has it, in a state of training
        inner = enumerate(leaf)
        return [put(value, (*path, i), shardings, dtype) for i, value in inner]
    if isinstance(leaf, PLAIN):
        return leaf
    array = isinstance(leaf, np.ndarray)
    what = f"{leaf.dtype} array" if array else _errors._type(leaf)
    where = "/".join(map(str, path))
    raise TypeError(f"it holds a {what} at {where!r}, which is no leaf")


def check_dtype(dtype: Any) -> None:
    """Refuses what floating-point leaves cannot be cast to without losing what they
    are."""
    if dtype is not None and not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise TypeError(f"dtype= is a floating-point dtype, not {dtype!r}.")


def cast(leaf: Any, dtype: Any) -> Any:
    """An array of floating-point numbers in `dtype`; others stay."""
    if dtype is None or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return leaf.astype(dtype)


def cast_on_device(leaf: jax.Array, path: _layout.Path, dtype: Any) -> jax.Array:
    """`cast`, or the refusal where JAX has not the bits of `dtype`."""
    if dtype is not None and jnp.issubdtype(leaf.dtype, jnp.floating):
        check_bits(path, jnp.dtype(dtype))
    return cast(leaf, dtype)  # type: ignore[no-any-return]
