"""Which units of Flax may be a unit of Haiku: those that meet the same data."""

from collections.abc import Callable
from collections.abc import Iterator
import itertools
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.contexts import within
from hk_bridge.migrate._matching.flat import CONSTANT
from hk_bridge.migrate._matching.holdings import Holdings
from hk_bridge.migrate._matching.holdings import Option
from hk_bridge.migrate._matching.known import Flax
from hk_bridge.migrate._matching.labels import inputs_of
from hk_bridge.migrate._matching.labels import labels_of
from hk_bridge.migrate._matching.orders import WAYS
from hk_bridge.migrate._matching.orders import flattened
from hk_bridge.migrate._matching.orders import joint
from hk_bridge.migrate._matching.orders import order_of
from hk_bridge.migrate._matching.orders import reordered
from hk_bridge.migrate._matching.orders import with_columns
from hk_bridge.migrate._matching.orders import with_rows
from hk_bridge.migrate._matching.prints import are_close
from hk_bridge.migrate._matching.prints import print_of
from hk_bridge.migrate._matching.side import DEEP
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.units import HOMOGENEOUS
from hk_bridge.migrate._matching.units import Site
from hk_bridge.migrate._matching.units import Unit

Value = Callable[[int], Any]  # of Haiku, by its number


class Finder:
    """Finds units of Flax for units of Haiku."""

    def __init__(self, flax: Flax, haiku: Side, held: Holdings):
        self.flax, self.haiku, self.held = flax, haiku, held

    def options(self, sites: list[Site], value: Value) -> list[Option]:
        """Ways to give all units of some sites of one step their counterparts."""
        parts = [list(self._site(site, value)) for site in sites]
        whole = itertools.islice(itertools.product(*parts), WAYS)
        return [tuple(itertools.chain(*option)) for option in whole]

    def _site(self, site: Site, value: Value) -> Iterator[Option]:
        units = [unit for unit in site.units if self.held.is_open(unit)]
        found = [self.candidates(unit, value) for unit in units]
        if all(found):
            yield from self._orders(list(joint(units, found)))
            return
        for pieces in self._taken_apart(units, found):
            pieces = [
                unit
                for unit in pieces
                if self.held.is_open(unit) and not self._is_blind(unit, value)
            ]
            found = [self.candidates(unit, value) for unit in pieces]
            if all(found):
                yield from joint(pieces, found)
                return

    def _orders(self, options: list[Option]) -> Iterator[Option]:
        """Options, and those in which what is cut out has another order.

        What is nobody's yet comes first, then what is followed by the same."""
        if any(len(option) > 1 for option in options):
            yield from options
            return
        sides = self.haiku.sites, self.flax.side.sites
        found = []
        for place, (pair,) in enumerate(options):
            free = bool(self.held.free[pair[1].first])
            ways = reordered(pair, sides, self.alike) if free else [(pair,)]
            cost = not free, -self.alike(*pair)
            found += [((*cost, i > 0, place), way) for i, way in enumerate(ways)]
        yield from (way for _, way in sorted(found, key=lambda pair: pair[0]))

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
                    self._look(unit, one, far, same, best, value)
            if best or unit.site.role not in ("sum", "product"):
                break
        if not best and unit.site.role in HOMOGENEOUS:
            for one, far in self._data(unit, value):
                for same, scaled in prints.find_scaled(one):
                    self._look(unit, scaled, far, same, best, value)
        return sorted(best.values(), key=lambda pair: pair[0])

    def _look(
        self,
        unit: Unit,
        one: Any,
        far: int,
        same: int,
        best: dict[int, tuple[Any, Unit]],
        value: Value,
    ) -> None:
        """Adds the units of Flax that meet one of the values that a unit meets."""
        ordered = are_close(one, self.flax.side.prints.of[same], ordered=True)
        for site, further, row, part in self.flax.by_data.get(same, ()):
            if site.role != unit.site.role:
                continue
            for other in self._units(site, row, part, unit):
                if not ordered and part is None and far == further == 0:
                    other = self._in_order(unit, other, value)
                cost = self._cost(unit, other, far + further, ordered)
                if id(other) not in best or cost < best[id(other)][0]:
                    best[id(other)] = cost, other

    def _in_order(self, unit: Unit, other: Unit, value: Value) -> Unit:
        """A unit with its elements in the order in which another has the data."""
        site, theirs, sites = unit.site, other.site, self.flax.side.sites
        parts = unit.rows, unit.columns, other.rows, other.columns
        if any(part is not None for part in parts) or unit.mixed or other.mixed:
            return other
        data = value(site.data), self.flax.kept[theirs.data]
        if site.role in ("sum", "product"):
            labels = [
                labels_of(s.flat, s.terms, u)
                for s, u in ((self.haiku.sites, unit), (sites, other))
            ]
            order = order_of(data, labels, unit.form[1])
            return other if order is None else with_columns(other, order)
        ours = inputs_of(self.haiku.flat, site)
        there = inputs_of(self.flax.side.flat, theirs)
        if ours is None or there is None:
            return other
        guesses = list(flattened(self.flax.side.flat, theirs, unit.form[0]))
        order = order_of(data, (ours, there), unit.form[0], guesses)
        return other if order is None else with_rows(other, order)

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
            chosen = np.isin(
                labels_of(self.haiku.flat, self.haiku.terms, whole), unit.columns
            )
            data = np.broadcast_to(value(site.data), chosen.shape)
            yield print_of(data[chosen]), 0

    def _units(
        self, site: Site, row: int | None, part: Unit | None, unit: Unit
    ) -> Iterator[Unit]:
        """The units at a site, or parts of them, that have the form of another."""
        if part is not None:
            fits = part.form == unit.form and part.done == unit.done
            yield from [part] if fits else []
            return
        for other in site.units:
            if other.done != unit.done:
                continue
            if row is None and other.form == unit.form:
                yield other
            elif row is not None or other.form[1] > unit.form[1]:
                sites = self.flax.side.sites
                parts = [*sites.parts(other), *sites.slices(other)]
                own = (part for part in parts if part.rows == row)
                yield from (p for p in own if p.form == unit.form)

    def _cost(self, unit: Unit, other: Unit, far: int, ordered: bool) -> Any:
        taken = not bool(self.held.free[other.first])
        whole = other.site.units[0].ids if other.columns is not None else other.ids
        return (
            taken,
            far,
            not ordered,
            -self.alike(unit, other),
            not bool(self.held.free[whole].all()),  # one head of each, then the next
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
        blind = site.role == "linear" and not np.any(self.flax.kept[other.data])
        if site.role != other.role or blind:
            return ()
        units = [unit for unit in site.units if self.held.is_open(unit)]
        parts = [p for u in units for p in self.haiku.sites.parts(u)]
        theirs = [p for u in other.units for p in (u, *self.flax.side.sites.parts(u))]
        pairs = [(unit, self._like(unit, theirs)) for unit in units]
        if all(like is not None for _, like in pairs):
            return tuple((unit, like) for unit, like in pairs if like is not None)
        parts = [p for p in parts if p.rows is not None and self.held.is_open(p)]
        pairs = [(p, self._like(p, theirs)) for p in parts]
        return tuple((p, like) for p, like in pairs if like is not None)[:1]

    def _like(self, unit: Unit, others: list[Unit]) -> Unit | None:
        for theirs in others:
            fits = theirs.form == unit.form and theirs.done == unit.done
            if fits and bool(self.held.free[theirs.first]):
                return theirs
        return None
