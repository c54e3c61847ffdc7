"""Rows of a table, made of which element is which.

The elements that a leaf of Haiku has of one leaf of Flax are a box in both, such as
`[0:6, 5:10]`, and the way between the boxes is a reshape, a transpose and a reshape.
"""

from collections.abc import Iterator
import itertools
from typing import Any
from typing import NamedTuple

import numpy as np

from hk_bridge.migrate._matching.holdings import FIXED
from hk_bridge.migrate._matching.holdings import Holdings
from hk_bridge.migrate._matching.leaf_table import FIXED_MARK
from hk_bridge.migrate._matching.leaf_table import UNKNOWN_MARK
from hk_bridge.migrate._matching.leaf_table import Row
from hk_bridge.migrate._matching.side import Side

Shape = tuple[int, ...]
_AXES = 4  # how many axes may be flipped
_MOST = 64  # in how many pieces a leaf is cut


class Box(NamedTuple):
    """A part of a leaf: its shape after a reshape, if one is needed, and the index."""

    view: Shape | None
    part: tuple[int | slice, ...]
    shape: Shape

    @property
    def text(self) -> str:
        view = "" if self.view is None else f".reshape({self.view})"
        return view + _index_text(self.part)


def rows_of(haiku: Side, flax: Side, held: Holdings) -> Iterator[Row]:
    """The rows of each leaf of Haiku, in their order."""
    for place, name in enumerate(haiku.names):
        ids = haiku.terms.ids(place)
        found = held.found[ids.ravel()]
        if ids.size and (found == FIXED).all():
            value = held.fixed[place]
            text = repr(int(value)) if value == int(value) else repr(float(value))
            yield Row(name, ids.shape, f"{FIXED_MARK}{text}", (), "")
            continue
        found = _extended(found, ids.shape, flax)
        known = found >= 0
        if not ids.size:
            yield Row(name, ids.shape, *_empty(ids.shape, flax), "")
        if not known.all():
            yield Row(name, ids.shape, UNKNOWN_MARK, (), "")
        starts = np.searchsorted(flax.terms.starts, found, "right") - 1
        starts[~known] = -1
        plus = held.plus[ids.ravel()]
        for other in _in_order(starts[known]):
            for added in _in_order(plus[starts == other]):
                chosen = np.flatnonzero((starts == other) & (plus == added))
                theirs = found[chosen] - flax.terms.starts[other]
                shape = flax.flat.shape(flax.flat.weights[other])
                ends = (name, ids.shape), (flax.names[other], shape)
                yield from _rows(*ends, chosen, theirs, added)


def _empty(shape: Shape, flax: Side) -> tuple[str, Shape]:
    """A leaf of Flax that has no elements, of a shape; or the number zero."""
    for name, number in zip(flax.names, flax.flat.weights, strict=True):
        if flax.flat.shape(number) == shape:
            return name, shape
    return f"{FIXED_MARK}0.0", ()


def _in_order(numbers: np.ndarray) -> list[Any]:
    """Each number once, as they come."""
    some, first = np.unique(numbers, return_index=True)
    made: list[Any] = some[np.argsort(first)].tolist()
    return made


def _extended(found: np.ndarray, shape: Shape, flax: Side) -> np.ndarray:
    """All of a leaf, if the part of it that is read is that of one as large.

    Of a table of positions, say, a short input reads the first few alone."""
    known = np.flatnonzero(found >= 0)
    if not known.size or known.size == found.size:
        return found
    place = int(np.searchsorted(flax.terms.starts, found[known[0]], "right")) - 1
    start, end = flax.terms.starts[place : place + 2]
    if end - start == found.size and bool((found[known] - start == known).all()):
        return np.arange(start, end)
    return found


Leaf = tuple[str, Shape]


def _rows(
    one: Leaf, two: Leaf, ours: np.ndarray, theirs: np.ndarray, plus: float
) -> list[Row]:
    """The rows of what a leaf of Haiku has of a leaf of Flax: one, if one tells it."""
    row = _row(one, two, ours, theirs, plus)
    if row is not None:
        return [row]
    for pieces in _blocks(ours, theirs, one[1]):
        rows = [_row(one, two, *piece, plus) for piece in pieces]
        if all(row is not None for row in rows):
            return [row for row in rows if row is not None]
    return [Row(*one, UNKNOWN_MARK, (), "")]


def _blocks(
    ours: np.ndarray, theirs: np.ndarray, shape: Shape
) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Ways to cut elements in pieces along an axis: in a row, or each so many."""
    box = box_of(ours, shape)
    for axis, size in enumerate(box.shape if box is not None else ()):
        assert box is not None, "There are axes of a box."
        if size < 2:
            continue
        both = [np.moveaxis(x.reshape(box.shape), axis, 0) for x in (ours, theirs)]
        gaps = np.diff(both[1], axis=0).reshape(size - 1, -1)
        cuts = [
            np.split(np.arange(size), np.flatnonzero((gaps != gap).any(1)) + 1)
            for gap in np.unique(gaps, axis=0)[:_MOST]
        ]
        periods = (n for n in range(2, _MOST) if size % n == 0)
        cuts += [[np.arange(i, size, n) for i in range(n)] for n in periods]
        for places in cuts:
            if 1 < len(places) <= _MOST:
                yield [_sorted(*(x[some].ravel() for x in both)) for some in places]


def _sorted(ours: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(ours)
    return ours[order], theirs[order]


def _row(
    first: Leaf, second: Leaf, ours: np.ndarray, theirs: np.ndarray, plus: float
) -> Row | None:
    (name, shape), (other, their_shape) = first, second
    one, two = box_of(ours, shape), box_of(theirs, their_shape)
    if one is None or two is None:
        return None
    order = np.argsort(theirs, kind="stable")
    places = np.empty(order.size, np.int64)
    places[order] = np.arange(order.size)
    how = turn(places, two.shape, one.shape)
    if how is None:
        how = _flipped(places, two.shape, one.shape)
    if how is None:
        return None
    added = f" {'+' if plus > 0 else '-'} {abs(plus)!r}" if plus else ""
    how = (how + added).strip()
    return Row(name, shape, other, their_shape, how, one.text, two.text)


def _flipped(places: np.ndarray, old: Shape, new: Shape) -> str | None:
    """How an array is turned after it is flipped along some axes."""
    long = [axis for axis, size in enumerate(old) if size > 1][:_AXES]
    for count in range(1, len(long) + 1):
        for axes in itertools.combinations(long, count):
            numbers = np.flip(np.arange(places.size).reshape(old), axes).ravel()
            how = turn(numbers[places], old, new)  # a flip is its own inverse
            if how is not None:
                return f".flip({axes})" + how
    return None


def box_of(numbers: np.ndarray, shape: Shape) -> Box | None:
    """The box that these elements of a leaf are, in whatever order.

    >>> box_of(np.array([1, 4]), (2, 3)).text
    '[:, 1]'
    >>> box_of(np.array([2, 3, 6, 7]), (8,)).text
    '.reshape((2, 2, 2))[:, 1]'
    """
    numbers = np.sort(numbers)
    if numbers.size == int(np.prod(shape, dtype=int)):
        return Box(None, (), shape)
    axes = np.unravel_index(numbers, shape)
    used = [np.unique(axis) for axis in axes]
    if int(np.prod([axis.size for axis in used], dtype=int)) != numbers.size:
        return None
    view: list[int] = []
    index: list[int | slice] = []
    for size, places in zip(shape, used, strict=True):
        made = _axis(size, places)
        if made is None:
            return None
        view += made[0]
        index += made[1]
    sizes = [
        len(range(*part.indices(n)))
        for n, part in zip(view, index, strict=True)
        if isinstance(part, slice)
    ]
    changed = tuple(view) != shape
    return Box(tuple(view) if changed else None, tuple(index), tuple(sizes))


def _axis(size: int, places: np.ndarray) -> tuple[list[int], list[int | slice]] | None:
    """An axis, maybe split in three, and which part of it is taken."""
    n, first = places.size, int(places[0])
    if n == size:
        return [size], [slice(None)]
    if n == 1:
        return [size], [first]
    gaps = np.diff(places)
    if (gaps == 1).all():
        return [size], [slice(first, first + n)]
    run = int(np.flatnonzero(gaps != 1)[0]) + 1
    period = int(places[run] - places[0]) if run < n else size
    starts = places.reshape(-1, run)[:, 0] if n % run == 0 else None
    if starts is None or period % run or size % period or n // run != size // period:
        return None
    expected = first + period * np.arange(n // run)[:, None] + np.arange(run)
    if (
        first % run
        or first >= period
        or not (places.reshape(-1, run) == expected).all()
    ):
        return None
    sizes = [size // period, period // run]
    part: list[int | slice] = [slice(None), first // run]
    return ([*sizes, run], [*part, slice(None)]) if run > 1 else (sizes, part)


def turn(places: np.ndarray, old: Shape, new: Shape) -> str | None:
    """How an array is turned so that element `i` is what was element `places[i]`.

    >>> turn(np.array([0, 3, 1, 4, 2, 5]), (2, 3), (3, 2))
    '.T'
    >>> turn(np.arange(6), (2, 3), (6,))
    '.reshape((6,))'
    """
    strides = _strides(places)
    if strides is None:
        return None
    down = sorted(range(len(strides)), key=lambda axis: -strides[axis][1])
    fine = tuple(strides[axis][0] for axis in down)
    axes = tuple(down.index(axis) for axis in range(len(strides)))
    if axes == tuple(range(len(axes))):
        return "" if old == new else f".reshape({new})"
    bare = tuple(size for size in old if size != 1)
    if bare == fine and len(bare) == len(old):
        how, shape = "", old
    else:
        how, shape = f".reshape({fine})", fine
    how += ".T" if axes == (1, 0) else f".transpose({axes})"
    shape = tuple(shape[axis] for axis in axes)
    return how if shape == new else f"{how}.reshape({new})"


def _strides(places: np.ndarray) -> list[tuple[int, int]] | None:
    """Sizes and strides that make these places, the outermost first."""
    if places.size == 1:
        return [] if places[0] == 0 else None
    made: list[tuple[int, int]] = []
    while places.size > 1:
        step = int(places[1] - places[0])
        breaks = np.flatnonzero(np.diff(places) != step)
        size = int(breaks[0]) + 1 if breaks.size else places.size
        if step <= 0 or places.size % size:
            return None
        rows = places.reshape(-1, size)
        if not (rows == rows[:, :1] + step * np.arange(size)).all():
            return None
        made.insert(0, (size, step))
        places = rows[:, 0]
    return made if places[0] == 0 else None


def _index_text(index: tuple[Any, ...]) -> str:
    while index and index[-1] == slice(None):
        index = index[:-1]
    if not index:
        return ""
    parts = []
    for part in index:
        whole = part == slice(None)
        span = isinstance(part, slice) and not whole
        parts.append(
            ":" if whole else f"{part.start}:{part.stop}" if span else str(part)
        )
    return f"[{', '.join(parts)}]"
