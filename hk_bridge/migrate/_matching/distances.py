"""How far apart two arrays are."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from hk_bridge.migrate._matching.prints import row_of

_NOTHING = 1e-30
_SMALL = 0.1  # how many of the elements are smaller than a small one


def distance(one: Any, two: Any, size: float | None = None) -> float:
    """The largest distance of elements, of their size, or of that of small ones.

    Of that of the largest it would be small beside a mask of -1e9, whatever the rest.
    Infinities and NaN have to be in the same places, whole numbers the same.

    >>> distance(np.array([1.0, -1e9]), np.array([1.5, -1e9])) > 0.1
    True
    >>> distance(np.array([1.0, np.inf]), np.array([1.0, np.inf]))
    0.0
    """
    if tuple(one.shape) != tuple(two.shape):
        return float("inf")
    ours, theirs = row_of(one), row_of(two)
    ends = ~(np.isfinite(ours) & np.isfinite(theirs))
    if not np.array_equal(ours[ends], theirs[ends], equal_nan=True):
        return float("inf")
    ours, theirs = ours[~ends], theirs[~ends]
    gaps = np.abs(ours - theirs)
    if not gaps.any():
        return 0.0
    if not any(jnp.issubdtype(x.dtype, jnp.inexact) for x in (one, two)):
        return float("inf")
    sizes = np.maximum(np.abs(ours), np.abs(theirs))
    if size is None:
        some = np.unique(sizes[sizes > 0].astype(np.float32))
        size = float(np.quantile(some, _SMALL, method="lower"))
    return float((gaps / np.maximum(sizes, max(size, _NOTHING))).max())


def largest(value: np.ndarray) -> float:
    """The size of the largest element that is finite."""
    return float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
