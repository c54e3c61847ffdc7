"""The outputs of one layer in two orders: what is cut out first in one network may be
cut out last in the other."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.holdings import Option
from hk_bridge.migrate._matching.labels import axes_of
from hk_bridge.migrate._matching.movement import NEUTRAL
from hk_bridge.migrate._matching.sites import Sites
from hk_bridge.migrate._matching.units import Ids
from hk_bridge.migrate._matching.units import Site
from hk_bridge.migrate._matching.units import Unit

WAYS = 64  # how many ways to give several units their counterparts are tried
_EQUAL = 1e-6
_AXES = 4  # how many axes may have been turned

Found = list[tuple[Any, Unit]]  # candidates for a unit, with their costs, best first
Alike = Callable[[Unit, Unit], int]


def joint(units: list[Unit], found: list[Found]) -> Iterator[Option]:
    """Ways to give each unit one of its candidates, none of them to two weights."""

    def ways(place: int, whose: dict[int, int]) -> Iterator[Option]:
        if place == len(units):
            yield ()
            return
        own = int(units[place].first)
        for _, other in found[place]:
            first = int(other.first)
            if whose.get(first, own) == own:
                for rest in ways(place + 1, {**whose, first: own}):
                    yield ((units[place], other), *rest)

    yield from itertools.islice(ways(0, {}), WAYS)


def reordered(
    pair: tuple[Unit, Unit], sides: tuple[Sites, Sites], alike: Alike
) -> list[Option]:
    """Ways to give the parts that are cut out of a unit those of its counterpart.

    The first is the likeliest, as far as what follows the parts tells; the two as they
    are count as one of them."""
    whole = all(u.rows is None and u.columns is None for u in pair)
    if pair[0].site.role != "linear" or not whole:
        return [(pair,)]
    one, two = (s.columns(unit) for s, unit in zip(sides, pair, strict=True))
    sizes = [sorted(part.form[1] for part in parts) for parts in (one, two)]
    if not one or sizes[0] != sizes[1]:
        turned = [] if pair[1].turned else _turned(pair, sides)
        return [(pair,), *(((pair[0], other),) for other in turned)]
    found: list[Found] = []
    for ours in one:
        some = [part for part in two if part.form == ours.form]
        found.append([(None, p) for p in sorted(some, key=lambda p: -alike(ours, p))])
    options = [(-_likeness(option, alike), option) for option in joint(one, found)]
    same = [np.array_equal(a.chosen, b.chosen) for a, b in zip(one, two, strict=True)]
    if all(same):
        plain = tuple(zip(one, two, strict=True))
        options = [(cost, o) for cost, o in options if not _are_same(o)]
        options.insert(0, (-_likeness(plain, alike), (pair,)))
    return [option for _, option in sorted(options, key=lambda way: way[0])]


def _turned(pair: tuple[Unit, Unit], sides: tuple[Sites, Sites]) -> list[Unit]:
    """A unit with its outputs as if their axes had been flattened in another order."""
    ours, theirs = (
        axes_of(s.flat, s.terms, unit) for s, unit in zip(sides, pair, strict=True)
    )
    found = []
    if 1 < len(ours) == len(theirs) <= _AXES:
        for axes in itertools.permutations(range(len(theirs))):
            order = np.arange(pair[1].form[1]).reshape(theirs).transpose(axes)
            if [*order.shape] == ours and axes != tuple(range(len(axes))):
                found.append(with_columns(pair[1], order.ravel()))
    return found


def with_columns(unit: Unit, order: np.ndarray) -> Unit:
    """A unit with its outputs in another order."""
    held = Ids.of(lambda: unit.ids[:, order])
    return dataclasses.replace(unit, held=held, turned=True)


def with_rows(unit: Unit, order: np.ndarray) -> Unit:
    """A unit with its inputs in another order."""
    held = Ids.of(lambda: unit.ids[order])
    return dataclasses.replace(unit, held=held, turned=True)


def _likeness(option: Option, alike: Alike) -> int:
    return sum(alike(one, two) for one, two in option)


def _are_same(option: Option) -> bool:
    return all(np.array_equal(a.chosen, b.chosen) for a, b in option)


def order_of(
    data: tuple[Any, Any],
    labels: Sequence[np.ndarray],
    n: int,
    guesses: Sequence[np.ndarray] = (),
) -> np.ndarray | None:
    """Which column of the second is each of the first, by what stands in them.

    Args:
      data: of both sides.
      labels: which column each of their elements is of.
      n: how many columns there are.
      guesses: orders to be looked at first. Columns of zeros alone, say, tell nothing.

    Returns:
      None if the order is the same, or if the columns are not.
    """
    marks = []
    for values, own in zip(data, labels, strict=True):
        values = np.broadcast_to(values, own.shape)
        if own.size % n or values.dtype.kind != "f" or not np.isfinite(values).all():
            return None
        turned = np.argsort(own.ravel(), kind="stable")
        if not (np.bincount(own.ravel(), minlength=n) == own.size // n).all():
            return None
        rows = values.ravel()[turned].reshape(n, -1)
        marks.append((rows + 0.7 * rows**2 + 0.4 * rows**3).mean(1))
    one, two = marks
    most = _EQUAL * max(float(np.abs(one).max()), 1e-30)
    if np.abs(one - two).max() <= most:
        return None
    orders = [np.argsort(mark, kind="stable") for mark in marks]
    found = np.empty(n, np.int64)
    found[orders[0]] = orders[1]
    for guess in (*guesses, found):
        if np.abs(one - two[guess]).max() <= most:
            return guess
    return None


def flattened(flat: Flat, site: Site, n: int) -> Iterator[np.ndarray]:
    """Orders that inputs have, if axes were turned before they were flattened."""
    step = flat.makers[flat.back(site.data, NEUTRAL)]
    shape = flat.shape(step.ins[0]) if step is not None and step.ins else ()
    for first in range(max(len(shape) - _AXES, 0), len(shape)):
        sizes = shape[first:]
        if int(np.prod(sizes)) == n:
            for axes in itertools.permutations(range(len(sizes))):
                yield np.arange(n).reshape(sizes).transpose(axes).ravel()
