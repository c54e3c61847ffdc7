"""What is known of Flax after its run: which sites read which values."""

import collections
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.contexts import later
from hk_bridge.migrate._matching.contexts import within
from hk_bridge.migrate._matching.holdings import Option
from hk_bridge.migrate._matching.prints import print_of
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.slices import slices_of
from hk_bridge.migrate._matching.units import Site
from hk_bridge.migrate._matching.units import Unit

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
        self._bits: dict[int, int] = {}
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
            for part, data in slices_of(self.side.sites, site, self.kept):
                self._add(print_of(data), part, 0)

        needed = {x for site in self.side.sites.all for x in (site.data, site.out)}
        for number in kept.keys() - needed - set(flat.outputs):
            del kept[number]

    def _without(self, value: int, far: int, unit: Unit, weights: np.ndarray) -> None:
        """Adds what a sum is without a unit in it."""
        if unit.cut:
            added: Any = weights[unit.ids[0]]
        else:
            added = self.kept[unit.site.weight]
        rest = self.kept[value] - (-added if unit.done == ("neg",) else added)
        self._add(print_of(rest), unit, far)

    def _add(self, made: np.ndarray, unit: Unit, far: int) -> None:
        """Adds data that a unit would meet, and that are no value of the program."""
        number = -1 - len(self.by_data)
        self.side.prints.put(number, made)
        self.by_data[number].append((unit.site, far, None, unit))

    def place(self, site: Site) -> int:
        """The place of a site among all."""
        return self.places[id(site)]

    def bit(self, unit: Unit) -> int:
        """A unit as a bit: that of its site, or its own if it is cut out.

        The parts along an axis have one for all, which counts after the next layer: up
        to there each part stays by itself, and all of them look alike."""
        is_slice = unit.columns is not None or (unit.rows or 0) < 0 or unit.turned
        if not unit.cut and not is_slice:
            return 1 << self.place(unit.site)
        key = id(unit) if unit.cut else -1 - self.place(unit.site)
        if key not in self._bits:
            self._bits[key] = len(self.places) + len(self._bits)
            self._masks = {}
        return 1 << self._bits[key]

    def bits(self, options: list[Option]) -> int:
        """The units of Flax in some options, a bit for each."""
        mask = 0
        for option in options:
            for _, other in option:
                mask |= self.bit(other)
        return mask

    def mask(self, value: int) -> int:
        """Which sites a value depends on, a bit for each."""
        if not self._masks:
            own: dict[int, int] = collections.defaultdict(int)
            sites = self.side.sites
            for site in sites.all:
                own[site.out] |= 1 << self.place(site)
                for part in (p for u in site.units for p in sites.columns(u)):
                    for value in part.cut:
                        own[value] |= self.bit(part)
            linear = {site.out for site in sites.all if site.role == "linear"}
            slices = {-1 - key: bit for key, bit in self._bits.items() if key < 0}
            for step in self.side.flat.steps:
                mask = 0
                for operand in step.ins:
                    mask |= self._masks.get(operand, 0)
                if not linear.isdisjoint(step.outs):
                    for place, bit in slices.items():
                        mask |= (mask >> place & 1) << bit
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
