"""Where weights meet data: what a weight is, is told by where it stands.

A site is a step that reads a value made of weights and one that depends on the inputs.
Each of its units says which elements of the weights, in which order, do the same as
which of another program would, if these did the same to the same data.
"""

from collections.abc import Iterator
import dataclasses
import functools
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.flat import DATA
from hk_bridge.migrate._matching.flat import LINEAR
from hk_bridge.migrate._matching.flat import WEIGHT
from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.forms import batched
from hk_bridge.migrate._matching.forms import canonical
from hk_bridge.migrate._matching.forms import free
from hk_bridge.migrate._matching.movement import CUTS
from hk_bridge.migrate._matching.movement import ELEMENTWISE
from hk_bridge.migrate._matching.movement import NEUTRAL
from hk_bridge.migrate._matching.movement import TURNS
from hk_bridge.migrate._matching.movement import moved
from hk_bridge.migrate._matching.terms import SCALED
from hk_bridge.migrate._matching.terms import Term
from hk_bridge.migrate._matching.terms import Terms

_ROLES = {"dot_general": "linear", "conv_general_dilated": "linear"}
_ROLES |= {"add": "sum", "sub": "sum", "add_any": "sum", "mul": "product"}
_ROLES |= {"div": "product", "gather": "gather"}

# What a scaled weight, or scaled data, makes scaled, and no more.
HOMOGENEOUS = {"linear", "product"}
_SCALES = {*HOMOGENEOUS, "gather"}
_DEEP = 12  # how many steps on the parts of a result are followed


@dataclasses.dataclass(eq=False)
class Unit:
    """Weights of one leaf or several that do one thing at a site.

    Attributes:
      site: where.
      ids: the numbers of the elements `[K, N]`, inputs by outputs.
      done: what was done to them before.
      plus: what is added to them, before or after.
      rows: which part of a joined input they read; None for all of it.
      columns: which of the outputs they make, in order; None for all.
      cut: the values that these outputs become, if they are cut out.
      mixed: whether elements of the weights met each other before.
    """

    site: "Site"
    ids: np.ndarray
    done: tuple[str, ...]
    plus: float
    rows: int | None = None
    columns: np.ndarray | None = None
    cut: tuple[int, ...] = ()
    mixed: bool = False


@dataclasses.dataclass(eq=False)
class Site:
    """A step that reads weights and data.

    Attributes:
      step: which.
      role: `linear`, `sum`, `product`, `gather`, or the name of its primitive.
      data: the operand that depends on the inputs.
      weight: the operand that is made of weights.
      units: what stands there: one for each term of the weights.
    """

    step: Step
    role: str
    data: int
    weight: int
    units: list[Unit] = dataclasses.field(default_factory=list)

    @property
    def out(self) -> int:
        return self.step.outs[0]


class Sites:
    """The sites of a program, in order."""

    def __init__(self, flat: Flat):
        self.flat, self.terms = flat, Terms(flat)
        self._canonical: dict[Any, list[tuple[Term, np.ndarray]]] = {}
        self._parts: dict[int, list[Unit]] = {}
        self._columns: dict[int, list[Unit]] = {}

    def at(self, step: Step) -> Iterator[Site]:
        """The sites at a step, one for each operand made of weights."""
        kinds = [self.flat.kinds[x] for x in step.ins]
        if step.name in LINEAR:
            kinds = [WEIGHT if kind == WEIGHT else DATA for kind in kinds]
        if WEIGHT not in kinds or DATA not in kinds:
            return
        for place, weight in enumerate(step.ins):
            if kinds[place] != WEIGHT:
                continue
            others = [
                x for x, kind in zip(step.ins, kinds, strict=True) if kind == DATA
            ]
            role = _ROLES.get(step.name, step.name)
            if step.name == "div" and place == 0:
                role = "divided"
            site = Site(step, role, others[0], weight)
            for term, ids in self._units(site, place):
                done = term.done
                if step.name == "div" and place == 1:
                    inverse = done[:1] == ("power 1/2",)
                    done = ("power -1/2", *done[1:]) if inverse else ("inverse", *done)
                if step.name == "sub" and place == 1:
                    done = ("neg", *done)
                plus = term.plus + self._after(site) if not done else term.plus
                while role in _SCALES and done[:1] in ((SCALED,), ("neg",)):
                    done = done[1:]
                site.units.append(Unit(site, ids, done, plus, mixed=term.mixed))
            yield site

    def _units(self, site: Site, place: int) -> list[tuple[Term, np.ndarray]]:
        params = site.step.params
        form: Any = ()
        if site.step.name == "dot_general" or site.step.name == "conv_general_dilated":
            form = (place, params["dimension_numbers"])
        key = (site.weight, site.role, str(form))
        if key not in self._canonical:
            terms = self.terms.of(site.weight)
            self._canonical[key] = [
                (t, t.ids.reshape(1, -1))
                if t.mixed
                else (t, canonical(site.step, site.role, place, t.ids))
                for t in terms
            ]
        return self._canonical[key]

    def _after(self, site: Site) -> float:
        """The constant that is added to a sum right after, if one is."""
        return self._added(site.out) if site.role == "sum" else 0.0

    def _added(self, value: int) -> float:
        for _ in range(4):
            readers = self.flat.readers[value]
            if len(readers) != 1:
                return 0.0
            (step,) = readers
            if step.name in ("add", "sub") and step.ins[0] == value:
                number = self.terms.scalar(step.ins[1])
                sign = 1 if step.name == "add" else -1
                return 0.0 if number is None else sign * number
            if step.name not in TURNS:
                return 0.0
            value = step.outs[0]
        return 0.0

    def columns(self, unit: Unit) -> list[Unit]:
        """The parts of a unit that are cut out of what it makes, all of its inputs."""
        if id(unit) not in self._columns:
            parts = self.parts(unit)
            if parts and parts[0].rows is not None:
                parts = [
                    self._part(unit, slice(None), None, chosen, cut)
                    for chosen, cut in self.cuts(unit)
                ]
            self._columns[id(unit)] = parts
        return self._columns[id(unit)]

    def parts(self, unit: Unit) -> list[Unit]:
        """A unit taken apart, as its data are joined and its outputs cut."""
        if id(unit) not in self._parts:
            self._parts[id(unit)] = list(self._apart(unit))
        return self._parts[id(unit)]

    def _apart(self, unit: Unit) -> Iterator[Unit]:
        site = unit.site
        rows = self.pieces(site) if site.role == "linear" else []
        columns = self.cuts(unit)
        if len(rows) < 2 and len(columns) < 2:
            return
        start = 0
        whole = np.arange(unit.ids.shape[1])
        for row, size in enumerate([self.flat.size(x) for x in rows] or [0]):
            inputs = slice(None)
            if len(rows) > 1:
                lead = self.flat.size(site.data) // unit.ids.shape[0]
                inputs = slice(start, start + size // lead)
                start += size // lead
            which = row if len(rows) > 1 else None
            for chosen, cut in columns or [(whole, ())]:
                yield self._part(unit, inputs, which, chosen, cut)

    def _part(
        self,
        unit: Unit,
        inputs: slice,
        row: int | None,
        chosen: np.ndarray,
        cut: tuple[int, ...],
    ) -> Unit:
        plus = unit.plus
        if cut and unit.site.role == "sum" and not unit.done:
            plus += self._added(cut[0])
        ids = unit.ids[inputs][:, chosen]
        some = chosen if ids.shape[1] < unit.ids.shape[1] else None
        return Unit(unit.site, ids, unit.done, plus, row, some, cut)

    def pieces(self, site: Site) -> list[int]:
        """The values of which the data of a site is joined, along what is summed."""
        if site.step.name != "dot_general":
            return []
        step = self.flat.makers[self.flat.back(site.data, NEUTRAL)]
        place = site.step.ins.index(site.data)
        (contracted, _) = site.step.params["dimension_numbers"]
        axes = contracted[place]
        if step is None or step.name != "concatenate" or len(axes) != 1:
            return []
        return list(step.ins) if step.params["dimension"] == axes[0] else []

    def data(self, unit: Unit) -> int:
        """The value that a unit meets: a part of it, if it is joined."""
        if unit.rows is None:
            return unit.site.data
        return self.pieces(unit.site)[unit.rows]

    def labels(self, unit: Unit) -> np.ndarray:
        """Which output of a unit each element of the result of its site is."""
        site, flat = unit.site, self.flat
        shape = flat.shape(site.out)
        n = unit.ids.shape[1]
        if site.step.name == "dot_general":
            place = site.step.ins.index(site.weight)
            held, shared = flat.shape(site.weight), batched(site.step)
            own = [held[axis] for axis in free(site.step, place, held)]
            after = len(shape) - len(own) if place == 1 else shared
            form = [*shape[:shared], *[1] * (len(shape) - shared)]
            form[after : after + len(own)] = own
            return np.broadcast_to(np.arange(n).reshape(form), shape)
        if site.step.name == "conv_general_dilated":
            channel = site.step.params["dimension_numbers"].out_spec[1]
            form = [1] * len(shape)
            form[channel] = n
            return np.broadcast_to(np.arange(n).reshape(form), shape)
        ids = self.terms.of(site.weight)[site.units.index(unit)].ids
        held = unit.ids.ravel()
        order = np.argsort(held)
        found = order[np.searchsorted(held, ids.ravel(), sorter=order)]
        return np.broadcast_to(found.reshape(ids.shape), shape)

    def cuts(self, unit: Unit) -> list[tuple[np.ndarray, tuple[int, ...]]]:
        """The outputs of a unit that are cut out together, and what they become."""
        if unit.mixed or unit.site.role not in ("linear", "sum", "product"):
            return []
        n = unit.ids.shape[1]
        member = np.zeros(n, np.int64)
        found: dict[int, list[int]] = {}
        todo = [(unit.site.out, self.labels(unit), 0)]
        seen = set()
        while todo:
            value, labels, deep = todo.pop(0)
            for step in self.flat.readers[value] if deep < _DEEP else ():
                if step.position in seen:
                    continue
                seen.add(step.position)
                for out, inner in self._followed(step, value, labels):
                    if inner.size < labels.size:
                        mark = len(found) + 1
                        found[mark] = [out]
                        member[np.unique(inner)] += 1 << min(mark, 62)
                    todo.append((out, inner, deep + 1))
        groups = [np.flatnonzero(member == mark) for mark in dict.fromkeys(member)]
        if len(groups) < 2:
            return []
        return [
            (group, tuple(v[0] for m, v in found.items() if member[group[0]] >> m & 1))
            for group in groups
        ]

    def _followed(
        self, step: Step, value: int, labels: np.ndarray
    ) -> Iterator[tuple[int, np.ndarray]]:
        """The results of a step whose elements still have the labels of its operand."""
        shape = self.flat.shape(step.outs[0])
        if step.name in CUTS | TURNS and step.ins[0] == value:
            known = [self.terms.known(x) for x in step.ins[1:]]
            if not any(x is None for x in known):
                yield from zip(step.outs, moved(step, [labels], known), strict=True)
        elif step.name in ELEMENTWISE and shape == labels.shape:
            yield step.outs[0], labels

    @functools.cached_property
    def all(self) -> list[Site]:
        """The sites of the program; of a weight that is read often the first few."""
        found, often = [], dict[int, int]()
        for step in self.flat.steps:
            for site in self.at(step):
                often[site.weight] = often.get(site.weight, 0) + 1
                if often[site.weight] <= 4:
                    found.append(site)
        return found
