"""The weights of Haiku as far as they are found, and values computed from them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.sites import Unit
from hk_bridge.migrate._matching.terms import Terms

Pair = tuple[Unit, Unit]  # of Haiku and of Flax
Option = tuple[Pair, ...]
UNKNOWN, FIXED = -1, -2
# A constant of this size beside a weight is no epsilon, and belongs to the weight.
FOLDED = 0.01


class Holdings:
    """Which element of Flax each element of Haiku's weights is.

    Attributes:
      found: the number of the element of Flax, or UNKNOWN, or FIXED.
      plus: what is added to it.
      free: whether an element of Flax is nobody's yet.
      options: what was assigned, in order.
    """

    def __init__(self, terms: Terms, weights: np.ndarray, fixed: Mapping[int, float]):
        self.terms, self.weights = terms, weights
        self.found = np.full(terms.total, UNKNOWN, np.int64)
        self.plus = np.zeros(terms.total)
        self.values = np.random.default_rng(7).standard_normal(terms.total) * 0.1
        self.lost = np.zeros(terms.total, bool)
        self.free = np.ones(weights.size, bool)
        self.options: list[Option] = []
        self._log: list[tuple[np.ndarray, np.ndarray]] = []
        sizes = np.diff(terms.starts)
        self.missing = sizes.copy()
        for place, number in fixed.items():
            ids = terms.ids(place).ravel()
            self.found[ids], self.values[ids] = FIXED, number
            self.missing[place] = 0

    def is_open(self, unit: Unit) -> bool:
        """Whether some elements of a unit have no counterpart yet."""
        ids = unit.ids[unit.ids >= 0]
        return bool(((self.found[ids] == UNKNOWN) & ~self.lost[ids]).any())

    def weight(self, place: int) -> Any:
        """A weight as far as it is found."""
        start, end = self.terms.starts[place : place + 2]
        aval = self.terms.flat.avals[self.terms.flat.weights[place]]
        held = self.values[start:end].reshape(aval.shape)
        return held.astype(aval.dtype) if np.dtype(aval.dtype).kind in "iub" else held

    def assign(self, option: Option) -> None:
        """Gives the elements of Haiku's units those of Flax's."""
        for unit, other in option:
            ids, theirs = unit.ids.ravel(), other.ids.ravel()
            new = (ids >= 0) & (theirs >= 0)
            new[new] = self.found[ids[new]] == UNKNOWN
            ids, theirs = ids[new], theirs[new]
            ids, first = np.unique(ids, return_index=True)
            theirs = theirs[first]
            gap = other.plus - unit.plus
            plus = gap if abs(gap) >= FOLDED else 0.0
            self.found[ids], self.plus[ids] = theirs, plus
            self.values[ids] = self.weights[theirs] + plus
            taken = np.unique(theirs[self.free[theirs]])
            self.free[taken] = False
            self._log.append((ids, taken))
            self._count(ids, -1)
        self.options.append(option)

    def undo(self, length: int) -> list[Option]:
        """Takes back what was assigned since there were `length` options."""
        undone = self.options[length:]
        for option in reversed(undone):
            for _ in option:
                ids, taken = self._log.pop()
                self.found[ids], self.plus[ids] = UNKNOWN, 0.0
                self.free[taken] = True
                self._count(ids, 1)
        del self.options[length:]
        return undone

    def lose(self, unit: Unit) -> None:
        """Notes that the elements of a unit have no counterpart."""
        ids = np.unique(unit.ids[unit.ids >= 0])
        ids = ids[(self.found[ids] == UNKNOWN) & ~self.lost[ids]]
        self.lost[ids] = True
        self._count(ids, -1)

    def _count(self, ids: np.ndarray, sign: int) -> None:
        places = np.searchsorted(self.terms.starts, ids, "right") - 1
        np.add.at(self.missing, places, sign)
