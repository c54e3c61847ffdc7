"""Fingerprints of values: equal for equal elements, in whatever shape they lie.

A print has the moments of the elements, which no transpose and no reshape changes, and
one number in which their order counts. So a value is known again without being kept.
"""

import collections
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# How far, in relation to their size, two values may be apart and be the same. Constants
# are float32 in both programs, and may be rounded in two ways (0.35355338 times x, and
# x divided by 2.828427); arithmetic adds nothing to speak of in float64.
CLOSE = 1e-6
_WIDTH = 4


@functools.lru_cache(maxsize=64)
def _noise(size: int) -> np.ndarray:
    return np.random.default_rng(size).uniform(-1, 1, size)


def row_of(value: Any) -> np.ndarray:
    """The elements of an array as numbers in one row."""
    if jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    row = np.asarray(value).ravel()
    if np.iscomplexobj(row):
        row = np.concatenate([row.real, row.imag])
    return row.astype(np.float64, copy=False)


def elements(value: Any) -> np.ndarray:
    """The same, all finite: infinities and NaN do not hide the other elements."""
    row = row_of(value)
    ends = ~np.isfinite(row)
    if not ends.any():
        return row
    size = np.abs(row[~ends]).mean() if not ends.all() else 1.0
    made: np.ndarray
    made = np.nan_to_num(row, nan=5 * size, posinf=3 * size, neginf=-3 * size)
    return made


def print_of(value: Any) -> np.ndarray:
    """The fingerprint of an array: how many elements, three moments, the order, sizes.

    >>> one, two = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3).T
    >>> prints = [print_of(value) for value in (one, two, -one)]
    >>> are_close(prints[0], prints[1]), are_close(prints[0], prints[2])
    (True, False)
    """
    row = elements(value)
    if not row.size:
        return np.zeros(2 * _WIDTH + 1)
    size, square = np.abs(row), row * row
    order = _noise(row.size) if row.size <= 1 << 22 else _noise(1 << 22)
    n = row.size
    moments = [row.sum() / n, square.sum() / n, _dot(square, row) / n]
    moments.append(_dot(row[: order.size], order) / order.size)
    root = np.sqrt(moments[1])
    scales = [size.sum() / n, moments[1], _dot(square, size) / n, root]
    return np.array([n, *moments, *scales])


def _dot(one: np.ndarray, two: np.ndarray) -> float:
    """`one @ two` without the threads of OpenBLAS."""
    return float(np.einsum("i,i", one, two))


def are_close(one: np.ndarray, two: np.ndarray, *, ordered: bool = False) -> bool:
    """Whether two prints are of the same elements; if `ordered`, in the same order."""
    return bool(_close(one, two[None], ordered)[0])


def _close(one: np.ndarray, many: np.ndarray, ordered: bool) -> np.ndarray:
    width = _WIDTH if ordered else _WIDTH - 1
    gaps = np.abs(many[:, 1 : 1 + width] - one[1 : 1 + width])
    scales = np.maximum(one[1 + _WIDTH :], many[:, 1 + _WIDTH :])[:, :width]
    same: np.ndarray
    same = (many[:, 0] == one[0]) & (gaps <= 3 * CLOSE * scales + 1e-300).all(axis=1)
    return same


def scaled(one: np.ndarray, factor: float) -> np.ndarray:
    """The print of a value that is multiplied by a number."""
    moments = factor ** np.array([1, 2, 3, 1])
    sizes = abs(factor) ** np.array([1, 2, 3, 1])
    return np.concatenate(
        [one[:1], one[1 : 1 + _WIDTH] * moments, one[1 + _WIDTH :] * sizes]
    )


def factor_of(one: np.ndarray, other: np.ndarray) -> float | None:
    """What the second is multiplied by to be the first; None if it is nothing.

    >>> value = np.arange(6.0)
    >>> round(factor_of(print_of(-2 * value), print_of(value)), 6)
    -2.0
    """
    if one[0] != other[0] or not one[-1] or not other[-1]:
        return None
    size = float(one[-1] / other[-1])
    for factor in (size, -size):
        if are_close(one, scaled(other, factor)):
            return factor
    return None


class Prints:
    """The prints of the values of a program, to be searched."""

    def __init__(self) -> None:
        self.of: dict[int, np.ndarray] = {}
        self._ids: dict[int, list[int]] = collections.defaultdict(list)
        self._rows: dict[int, list[np.ndarray]] = collections.defaultdict(list)
        self._joined: dict[int, np.ndarray] = {}

    def add(self, number: int, value: Any) -> None:
        """Adds the print of a value."""
        self.put(number, print_of(value))

    def put(self, number: int, made: np.ndarray) -> None:
        """Adds a print, or puts it in place of another."""
        if number in self.of:
            self.drop(number)
        self.of[number] = made
        size = int(made[0])
        self._ids[size].append(number)
        self._rows[size].append(made)
        self._joined.pop(size, None)

    def drop(self, number: int) -> None:
        """Forgets a value."""
        size = int(self.of.pop(number)[0])
        place = self._ids[size].index(number)
        del self._ids[size][place], self._rows[size][place]
        self._joined.pop(size, None)

    def find(self, one: np.ndarray, *, ordered: bool = False) -> list[int]:
        """The values with the same elements, by their numbers."""
        return self._found(int(one[0]), one, ordered)

    def find_scaled(self, one: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """The values of which it is a multiple, and its print without the factor."""
        found = []
        for number in self._ids.get(int(one[0]), ()):
            factor = factor_of(one, self.of[number])
            if factor is not None:
                found.append((number, scaled(one, 1 / factor)))
        return found

    def find_repeated(self, one: np.ndarray) -> list[int]:
        """The values that have each of the elements more often, or less."""
        n, found = int(one[0]), list[int]()
        for size in self._ids:
            if size != n and min(size, n) > 1 and max(size, n) % min(size, n) == 0:
                found += self._found(size, np.array([size, *one[1:]]), ordered=False)
        return found

    def _found(self, size: int, one: np.ndarray, ordered: bool) -> list[int]:
        if not self._ids.get(size):
            return []
        if size not in self._joined:
            self._joined[size] = np.stack(self._rows[size])
        found = np.flatnonzero(_close(one, self._joined[size], ordered))
        return [self._ids[size][place] for place in found]
