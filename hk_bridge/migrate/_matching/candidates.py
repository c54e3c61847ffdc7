"""Which units of Flax may be a unit of Haiku: those that meet the same data."""

import collections
from collections.abc import Callable
from collections.abc import Iterator
import itertools
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.contexts import later
from hk_bridge.migrate._matching.contexts import within
from hk_bridge.migrate._matching.flat import CONSTANT
from hk_bridge.migrate._matching.holdings import Holdings
from hk_bridge.migrate._matching.holdings import Option
from hk_bridge.migrate._matching.prints import are_close
from hk_bridge.migrate._matching.prints import print_of
from hk_bridge.migrate._matching.side import DEEP
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.sites import Site
from hk_bridge.migrate._matching.sites import Unit

# How many ways to give several units their counterparts are tried.
_WAYS = 64
_PLAIN = ((), ("neg",))


class Flax:
    """The side of Flax after its run.

    Attributes:
      side: of Flax.
      kept: values of what its sites read and give.
      by_data: the sites that have a value as their data, how far it is from them, and
        which part of it they read.
    """

    def __init__(self, side: Side, kept: dict[int, Any], weights: np.ndarray):
        self.side, self.kept = side, kept
        self.by_data: dict[int, list[tuple[Site, int, int | None, Unit | None]]]
        self.by_data = collections.defaultdict(list)
        self._masks: dict[int, int] = {}
        flat = self.side.flat
        self.places: dict[int, int] = {}
        for place, site in enumerate(self.side.sites.all):
            self.places[id(site)] = place
            for value, far in within(flat, site):
                self.by_data[value].append((site, far, None, None))
            for row, piece in enumerate(self.side.sites.pieces(site)):
                self.by_data[piece].append((site, 0, row, None))
            for unit in _additions(self.side, site):
                for value, far in later(flat, unit):
                    self._without(value, far, unit, weights)

    def _without(self, value: int, far: int, unit: Unit, weights: np.ndarray) -> None:
        """Adds what a sum is without a unit in it."""
        if unit.cut:
            added: Any = weights[unit.ids[0]]
        else:
            added = self.kept[unit.site.weight]
        rest = self.kept[value] - (-added if unit.done == ("neg",) else added)
        number = -1 - len(self.by_data)
        self.side.prints.put(number, print_of(rest))
        self.by_data[number].append((unit.site, far, None, unit))

    def place(self, site: Site) -> int:
        """The place of a site among all."""
        return self.places[id(site)]

    def mask(self, value: int) -> int:
        """Which sites a value depends on, a bit for each."""
        if not self._masks:
            own: dict[int, int] = collections.defaultdict(int)
            for site in self.side.sites.all:
                own[site.out] |= 1 << self.place(site)
            for step in self.side.flat.steps:
                mask = 0
                for operand in step.ins:
                    mask |= self._masks.get(operand, 0)
                for out in step.outs:
                    self._masks[out] = mask | own.get(out, 0)
        return self._masks.get(value, 0)


def _additions(side: Side, site: Site) -> list[Unit]:
    """The units of a site that are added to something, and their parts."""
    if site.role != "sum" or len(site.units) != 1 or site.units[0].done not in _PLAIN:
        return []
    (unit,) = site.units
    return [unit, *side.sites.parts(unit)] if (unit.ids >= 0).all() else [unit]


def wanted(side: Side) -> set[int]:
    """The values of a program that are to be kept: what sites read and give."""
    numbers = set(side.flat.outputs)
    for site in side.sites.all:
        numbers |= {site.data, site.out, *side.sites.pieces(site)}
        for unit in _additions(side, site):
            numbers |= {site.weight, *(value for value, _ in later(side.flat, unit))}
    return numbers


Value = Callable[[int], Any]  # of Haiku, by its number


class Finder:
    """Finds units of Flax for units of Haiku."""

    def __init__(self, flax: Flax, haiku: Side, held: Holdings):
        self.flax, self.haiku, self.held = flax, haiku, held

    def options(self, sites: list[Site], value: Value) -> list[Option]:
        """Ways to give all units of some sites of one step their counterparts."""
        parts = [list(self._site(site, value)) for site in sites]
        whole = itertools.islice(itertools.product(*parts), _WAYS)
        return [tuple(itertools.chain(*option)) for option in whole]

    def _site(self, site: Site, value: Value) -> Iterator[Option]:
        units = [unit for unit in site.units if self.held.is_open(unit)]
        found = [self.candidates(unit, value) for unit in units]
        if all(found):
            yield from _joint(units, found)
            return
        for pieces in self._taken_apart(units, found):
            pieces = [
                unit
                for unit in pieces
                if self.held.is_open(unit) and not self._is_blind(unit, value)
            ]
            found = [self.candidates(unit, value) for unit in pieces]
            if all(found):
                yield from _joint(pieces, found)
                return

    def _is_blind(self, unit: Unit, value: Value) -> bool:
        """Whether a part of a unit meets zeros, as a state does at first.

        It is found at the next step of the loop."""
        if unit.rows is None:
            return False
        piece = self.haiku.sites.pieces(unit.site)[unit.rows]
        return not np.any(value(piece))

    def _taken_apart(
        self, units: list[Unit], found: list[list[Any]]
    ) -> Iterator[list[Unit]]:
        """The units with those that have no candidate taken apart, in each way."""
        parts = [self.haiku.sites.parts(unit) for unit in units]
        for rows, columns in ((False, True), (True, False), (True, True)):
            pieces = []
            for unit, own, whole in zip(units, parts, found, strict=True):
                form = (rows, columns)
                some = [
                    p
                    for p in own
                    if (p.rows is not None, p.columns is not None) == form
                ]
                pieces += [unit] if whole else some
                if not whole and not some:
                    break
            else:
                yield pieces

    def candidates(self, unit: Unit, value: Value) -> list[tuple[Any, Unit]]:
        """Units of Flax that meet the same data, the likeliest first."""
        best: dict[int, tuple[Any, Unit]] = {}
        prints = self.flax.side.prints
        for find in (prints.find, prints.find_repeated):
            for one, far in self._data(unit, value):
                for same in find(one):
                    self._look(unit, one, far, same, best)
            if best or unit.site.role not in ("sum", "product"):
                break
        return sorted(best.values(), key=lambda pair: pair[0])

    def _look(
        self,
        unit: Unit,
        one: Any,
        far: int,
        same: int,
        best: dict[int, tuple[Any, Unit]],
    ) -> None:
        """Adds the units of Flax that meet one of the values that a unit meets."""
        ordered = are_close(one, self.flax.side.prints.of[same], ordered=True)
        for site, further, row, part in self.flax.by_data.get(same, ()):
            if site.role != unit.site.role:
                continue
            for other in self._units(site, row, part, unit):
                cost = self._cost(unit, other, far + further, ordered)
                if id(other) not in best or cost < best[id(other)][0]:
                    best[id(other)] = cost, other

    def _data(self, unit: Unit, value: Value) -> Iterator[tuple[Any, int]]:
        site, flat = unit.site, self.haiku.flat
        if unit.rows is not None:
            yield print_of(value(self.haiku.sites.pieces(site)[unit.rows])), 0
        elif unit.columns is None or site.role == "linear":
            for number, far in within(flat, site):
                if flat.kinds[number] == CONSTANT:
                    yield print_of(value(number)), far
                elif number in self.haiku.prints.of:
                    yield self.haiku.prints.of[number], far
        else:
            whole = next(u for u in site.units if u.done == unit.done)
            chosen = np.isin(self.haiku.sites.labels(whole), unit.columns)
            data = np.broadcast_to(value(site.data), chosen.shape)
            yield print_of(data[chosen]), 0

    def _units(
        self, site: Site, row: int | None, part: Unit | None, unit: Unit
    ) -> Iterator[Unit]:
        """The units at a site, or parts of them, that have the form of another."""
        if part is not None:
            fits = part.ids.shape == unit.ids.shape and part.done == unit.done
            yield from [part] if fits else []
            return
        for other in site.units:
            if other.done != unit.done:
                continue
            if row is None and other.ids.shape == unit.ids.shape:
                yield other
            elif row is not None or other.ids.shape[1] > unit.ids.shape[1]:
                for part in self.flax.side.sites.parts(other):
                    if part.rows == row and part.ids.shape == unit.ids.shape:
                        yield part

    def _cost(self, unit: Unit, other: Unit, far: int, ordered: bool) -> Any:
        taken = not bool(self.held.free[other.ids.flat[0]])
        return (
            taken,
            far,
            not ordered,
            -self.alike(unit, other),
            self.flax.place(other.site),
            0 if other.columns is None else int(other.columns[0]),
        )

    def alike(self, unit: Unit, other: Unit) -> int:
        """How many steps after two units do the same."""
        deep = 0
        while deep < DEEP and self.colour(self.haiku, unit, deep) == self.colour(
            self.flax.side, other, deep
        ):
            deep += 1
        return deep

    def colour(self, side: Side, unit: Unit, deep: int = DEEP) -> int:
        """Equal where what follows the outputs of units is alike."""
        values = unit.cut or (unit.site.out,)
        return hash(tuple(sorted(side.colour(value, deep) for value in values)))

    def likely(self, site: Site, last: int) -> Option:
        """Units of Flax at the likeliest site, by form, by what follows, by place."""
        ways = []
        for other in self.flax.side.sites.all:
            pairs = self._fitting(site, other)
            if pairs:
                unit, theirs = pairs[0]
                place = self.flax.place(other)
                cost = (place < last, not self.alike(unit, theirs), place)
                ways.append((cost, pairs))
        return min(ways, key=lambda way: way[0])[1] if ways else ()

    def _fitting(self, site: Site, other: Site) -> Option:
        """The open units of two sites, if they have the same forms; else some parts."""
        if site.role != other.role:
            return ()
        units = [unit for unit in site.units if self.held.is_open(unit)]
        parts = [p for u in units for p in self.haiku.sites.parts(u) if p.rows]
        theirs = [p for u in other.units for p in (u, *self.flax.side.sites.parts(u))]
        pairs = [(unit, self._like(unit, theirs)) for unit in units]
        if all(like is not None for _, like in pairs):
            return tuple((unit, like) for unit, like in pairs if like is not None)
        pairs = [(p, self._like(p, theirs)) for p in parts if self.held.is_open(p)]
        return tuple((p, like) for p, like in pairs if like is not None)[:1]

    def _like(self, unit: Unit, others: list[Unit]) -> Unit | None:
        for theirs in others:
            fits = theirs.ids.shape == unit.ids.shape and theirs.done == unit.done
            if fits and bool(self.held.free[theirs.ids.flat[0]]):
                return theirs
        return None


def _joint(units: list[Unit], found: list[list[tuple[Any, Unit]]]) -> Iterator[Option]:
    """Ways to give each unit one of its candidates, none of them twice."""

    def ways(place: int, used: frozenset[int]) -> Iterator[Option]:
        if place == len(units):
            yield ()
            return
        for _, other in found[place]:
            first = int(other.ids.flat[0])
            if first not in used:
                for rest in ways(place + 1, used | {first}):
                    yield ((units[place], other), *rest)

    yield from itertools.islice(ways(0, frozenset()), _WAYS)
