"""How an array is turned from one shape to another, as far as shapes tell."""

from collections.abc import Sequence
import itertools
import math
import operator


def remedy(expected: str, given: str) -> str | None:
    """How to make an array fit, where a line does it."""
    (to, new), (dtype, old) = _parsed(expected), _parsed(given)
    turns = None if new is None or old is None else steps(old, new)
    if turns is None:
        return None
    return "leaf" + turns + (f".astype({to!r})" if to != dtype else "")


def steps(old: tuple[int, ...], new: tuple[int, ...]) -> str | None:
    """The one likely way from a shape to another; None if there is none, or are two."""
    if old == new:
        return ""
    turned = (*range(2, len(old)), 1, 0)  # [O, I, *spatial] to [*spatial, I, O]
    if 2 <= len(old) <= 5 and new == tuple(old[axis] for axis in turned):
        return ".T" if len(old) == 2 else f".transpose({turned})"
    straight = in_order(old, new)
    vector = sum(size != 1 for size in old) <= 1  # the same either way
    transposed = not vector and in_order(old[::-1], new)
    if straight == transposed or (transposed and len(old) > 2):
        return None
    return ".T" * transposed + f".reshape({new})"


def in_order(old: Sequence[int], new: Sequence[int]) -> bool:
    """Whether axes are merely split, merged or of size 1 between two shapes.

    >>> in_order((12, 24), (12, 4, 6)), in_order((24, 12), (12, 4, 6))
    (True, False)
    """
    ends, others = (
        {*itertools.accumulate((size for size in shape if size != 1), operator.mul)}
        for shape in (old, new)
    )  # an axis is split where only `others` has an end, merged where only `ends` has
    sides = [(end in ends) - (end in others) for end in sorted(ends | others)]
    adjacent = itertools.pairwise(sides)
    return math.prod(old) == math.prod(new) and all(a * b >= 0 for a, b in adjacent)


def _parsed(text: str) -> tuple[str, tuple[int, ...] | None]:
    dtype, bracket, sizes = text.removesuffix("]").partition("[")
    if not bracket or not text.endswith("]") or not sizes.replace(",", "0").isdigit():
        return dtype, () if text.endswith("[]") else None
    return dtype, tuple(map(int, sizes.split(",")))
