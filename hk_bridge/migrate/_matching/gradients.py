"""Gradients of both networks by the leaves of Flax, compared one by one."""

import functools
import itertools
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.claims import Claims
from hk_bridge.migrate._matching.distances import distance
from hk_bridge.migrate._matching.distances import largest
from hk_bridge.migrate._matching.prints import row_of
from hk_bridge.migrate._matching.slopes import Rules
from hk_bridge.migrate._matching.trees import PARAMS


class Slopes:
    """Takes those of Haiku, which are summed by what its leaves are, then of Flax.

    Attributes:
      rules: of derivatives, for both.
    """

    def __init__(self, claimed: Claims):
        self.rules: Rules = {}
        (self._haiku, self._flax), self._found = claimed.sides, claimed.found
        self._summed = np.zeros(self._flax.terms.total, np.float32)
        self._left: dict[int, str] = {
            place: name
            for place, name in enumerate(self._flax.names)
            if name.startswith(f"{PARAMS}/")
        }
        self._worst = (0.0, "")

    def add(self, place: int, slope: Any) -> None:
        """Takes the gradient by a leaf of Haiku."""
        which = self._found[slice(*self._haiku.terms.starts[place : place + 2])]
        known = which >= 0
        row = row_of(slope).astype(np.float32)
        np.add.at(self._summed, which[known], row[known])

    def compare(self, place: int, slope: Any) -> None:
        """Takes the gradient by a leaf of Flax, after all of Haiku."""
        name = self._left.pop(place)
        part = slice(*self._flax.terms.starts[place : place + 2])
        some = self._covered[part]
        if some.any():
            row = row_of(slope).astype(np.float32)
            size = max(largest(row), 1e-6 * self._whole)
            gap = distance(self._summed[part][some], row[some], size)
            self._worst = max(self._worst, (gap, name))

    def worst(self) -> tuple[float, str]:
        """The largest distance, and at which leaf of Flax."""
        for place in list(self._left):
            size = self._flax.flat.size(self._flax.flat.weights[place])
            self.compare(place, np.zeros(size))
        return self._worst

    @functools.cached_property
    def _covered(self) -> np.ndarray:
        """Which elements of Flax some leaf of Haiku is."""
        made = np.zeros(self._flax.terms.total, bool)
        starts = self._haiku.terms.starts
        for start, end in itertools.pairwise(starts):  # leaf by leaf: it takes less
            which = self._found[start:end]
            made[which[which >= 0]] = True
        return made

    @functools.cached_property
    def _whole(self) -> float:
        """The size of the largest gradient."""
        ends = self._summed.max(initial=0.0), -self._summed.min(initial=0.0)
        return float(max(ends))
