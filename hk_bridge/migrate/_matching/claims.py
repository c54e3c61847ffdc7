"""What a search came to, as far as it is to be proven."""

from typing import NamedTuple

import numpy as np

from hk_bridge.migrate._matching.prints import are_close
from hk_bridge.migrate._matching.prints import factor_of
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.solve import Solved
from hk_bridge.migrate._matching.solve import output_pairs
from hk_bridge.migrate._matching.units import Unit


class Claims(NamedTuple):
    """What a search came to, as far as it is to be proven.

    Attributes:
      sides: of Haiku and of Flax.
      found: which element of Flax each element of Haiku's weights is.
      inner: values of Haiku and of Flax that have to be the same, by their numbers, if
        the second is multiplied by the third.
      ends: outputs that have to be the same, by their places.
    """

    sides: tuple[Side, Side]
    found: np.ndarray
    inner: list[tuple[int, int, float]]
    ends: list[tuple[int, int]]


def claims(solved: Solved) -> Claims:
    """What a search came to; the rest of it can be forgotten."""
    sides = solved.haiku, solved.flax.side
    one, two = (Side(side.flat, side.names, side.outputs) for side in sides)
    inner = [
        (unit.site.out, other.site.out, _factor(sides, unit, other))
        for option in solved.search.held.options[: solved.search.sure]
        for unit, other in option
        if _are_whole(unit, other)
    ]
    ends = output_pairs(solved.search, sides[1], sides[0])
    found = solved.search.held.found
    return Claims((one, two), found, list(dict.fromkeys(inner)), ends)


def _are_whole(unit: Unit, other: Unit) -> bool:
    """Whether the results of two sites are the same, and not merely their weights."""
    if unit.rows is not None or other.rows is not None:
        return False
    if unit.columns is not None or other.columns is not None:
        return False
    return unit.site.role in ("linear", "gather")


def _factor(sides: tuple[Side, Side], unit: Unit, other: Unit) -> float:
    """By what a result is larger in Haiku, if a number is put before another layer."""
    made = (
        s.prints.of.get(u.site.out) for s, u in zip(sides, (unit, other), strict=True)
    )
    one, two = made
    if one is None or two is None or are_close(one, two):
        return 1.0
    return factor_of(one, two) or 1.0
