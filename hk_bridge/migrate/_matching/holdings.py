"""The weights of Haiku as far as they are found, and values computed from them."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from hk_bridge.migrate._matching.terms import Terms
from hk_bridge.migrate._matching.units import Unit

Pair = tuple[Unit, Unit]  # of Haiku and of Flax
Option = tuple[Pair, ...]
Some = slice | np.ndarray  # numbers of elements, each once
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
      fixed: the numbers that some weights are, by their places.
      missing: how many elements of each weight are not found yet.
    """

    def __init__(self, terms: Terms, weights: np.ndarray, fixed: Mapping[int, float]):
        self.terms, self.weights = terms, weights
        self.found = np.full(terms.total, UNKNOWN, terms.dtype)
        self.plus = np.zeros(terms.total)
        self.lost = np.zeros(terms.total, bool)
        self.free = np.ones(weights.size, bool)
        self.options: list[Option] = []
        self._log: list[tuple[Some, Some]] = []
        self.missing, self.fixed = np.diff(terms.starts), dict(fixed)
        for place in fixed:
            self.found[slice(*terms.starts[place : place + 2])] = FIXED
            self.missing[place] = 0

    def is_open(self, unit: Unit) -> bool:
        """Whether some elements of a unit have no counterpart yet."""
        ids = unit.ids
        ids = ids[ids >= 0]
        return bool(((self.found[ids] == UNKNOWN) & ~self.lost[ids]).any())

    def taken(self, starts: np.ndarray) -> np.ndarray:
        """Whether elements of each of Flax's weights are somebody's."""
        before = np.concatenate([[0], np.cumsum(~self.free)])[starts]
        made: np.ndarray = np.diff(before) > 0
        return made

    def weight(self, place: int) -> Any:
        """A weight as far as it is found, the rest of it random."""
        part = slice(*self.terms.starts[place : place + 2])
        aval = self.terms.flat.avals[self.terms.flat.weights[place]]
        found = self.found[part]
        known = found >= 0
        if known.all():
            made = self.weights[found].astype(np.float64) + self.plus[part]
        elif place in self.fixed:
            made = np.full(found.size, float(self.fixed[place]))
        else:
            made = 0.1 * np.random.default_rng(place).standard_normal(found.size)
            made[known] = self.weights[found[known]] + self.plus[part][known]
        made = made.reshape(aval.shape)
        return made.astype(aval.dtype) if np.dtype(aval.dtype).kind in "iub" else made

    def assign(self, option: Option) -> None:
        """Gives the elements of Haiku's units those of Flax's."""
        for unit, other in option:
            ids, theirs = unit.ids.ravel(), other.ids.ravel()
            new = (ids >= 0) & (theirs >= 0)
            new[new] = self.found[ids[new]] == UNKNOWN
            if not new.all():
                ids, theirs = ids[new], theirs[new]
            self.found[ids[::-1]] = theirs[::-1]  # the first of several stays
            some = _once(ids)
            gap = other.plus - unit.plus
            plus = gap if abs(gap) >= FOLDED and self._is_float(unit) else 0.0
            if plus:
                self.plus[some] = plus
            taken = _once(theirs[self.free[theirs]])
            self.free[taken] = False
            self._log.append((some, taken))
            self._count(some, -1)
        self.options.append(option)

    def _is_float(self, unit: Unit) -> bool:
        """Whether a constant may be part of a weight: of an index it is none."""
        flat = self.terms.flat
        first = unit.first if unit.first >= 0 else unit.ids.max(initial=0)
        place = self.terms.whose(int(first))
        return bool(jnp.issubdtype(flat.avals[flat.weights[place]].dtype, jnp.inexact))

    def undo(self, length: int) -> list[Option]:
        """Takes back what was assigned since there were `length` options."""
        undone = self.options[length:]
        for option in reversed(undone):
            for _ in option:
                some, taken = self._log.pop()
                if self.plus[some].any():
                    self.plus[some] = 0.0
                self.found[some] = UNKNOWN
                self.free[taken] = True
                self._count(some, 1)
        del self.options[length:]
        return undone

    def lose(self, unit: Unit) -> None:
        """Notes that the elements of a unit have no counterpart."""
        ids = unit.ids
        ids = ids[ids >= 0]
        some = _once(ids[(self.found[ids] == UNKNOWN) & ~self.lost[ids]])
        self.lost[some] = True
        self._count(some, -1)

    def _count(self, some: Some, sign: int) -> None:
        starts = self.terms.starts
        if isinstance(some, slice):
            ends = np.clip(starts, some.start, some.stop)
            self.missing += sign * np.diff(ends)
        else:
            np.add.at(self.missing, np.searchsorted(starts, some, "right") - 1, sign)


def _once(ids: np.ndarray) -> Some:
    """Numbers, each once: a slice if they are all in a row."""
    if not ids.size:
        return slice(0, 0)
    start = int(ids.min())
    marks = np.zeros(int(ids.max()) + 1 - start, bool)
    marks[ids - start] = True
    if marks.all():
        return slice(start, start + marks.size)
    return (np.flatnonzero(marks) + start).astype(ids.dtype)
