"""The floats of a tree, by which and of which gradients are taken."""

from typing import Any

import jax
import jax.numpy as jnp

from hk_bridge import _abstract

Tree = Any


def total(output: Tree) -> jax.Array:
    """A number that depends on every float of `output`, complex ones in two parts."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(floats(output))]
    parts = [part for x in leaves for part in _parts(x)]
    sums = (jnp.sum(jnp.sin(part.astype(jnp.float32))) for part in parts)
    return sum(sums, jnp.zeros([]))


def _parts(x: jax.Array) -> list[jax.Array]:
    return [x.real, x.imag] if jnp.iscomplexobj(x) else [x]


def floats(tree: Tree) -> Tree:
    """`tree` with None for what has no gradient."""
    return jax.tree.map(lambda x: x if _has_gradient(x) else None, tree)


def _has_gradient(leaf: Any) -> bool:
    if _abstract.is_array(leaf):
        return bool(jnp.issubdtype(leaf.dtype, jnp.inexact))
    return isinstance(leaf, (float, complex))
