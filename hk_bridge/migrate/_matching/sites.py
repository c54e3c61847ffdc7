"""Where weights meet data: what a weight is, is told by where it stands.

A site is a step that reads a value made of weights and one that depends on the inputs.
Each of its units says which elements of the weights, in which order, do the same as
which of another program would, if these did the same to the same data.
"""

from collections.abc import Callable
from collections.abc import Iterator
import functools
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.flat import DATA
from hk_bridge.migrate._matching.flat import LINEAR
from hk_bridge.migrate._matching.flat import WEIGHT
from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.forms import canonical
from hk_bridge.migrate._matching.labels import axes_of
from hk_bridge.migrate._matching.labels import cuts
from hk_bridge.migrate._matching.movement import NEUTRAL
from hk_bridge.migrate._matching.movement import TURNS
from hk_bridge.migrate._matching.terms import SCALED
from hk_bridge.migrate._matching.terms import Term
from hk_bridge.migrate._matching.terms import Terms
from hk_bridge.migrate._matching.units import HOMOGENEOUS
from hk_bridge.migrate._matching.units import Ids
from hk_bridge.migrate._matching.units import Site
from hk_bridge.migrate._matching.units import Unit

_ROLES = {"dot_general": "linear", "conv_general_dilated": "linear"}
_ROLES |= {"add": "sum", "sub": "sum", "add_any": "sum", "mul": "product"}
_ROLES |= {"div": "product", "gather": "gather"}


_NONE = np.zeros(0, np.int32)
_MOST = 64  # how many heads or experts are told apart
_SCALES = {*HOMOGENEOUS, "gather"}


class Sites:
    """The sites of a program, in order."""

    def __init__(self, flat: Flat):
        self.flat, self.terms = flat, Terms(flat)
        self._canonical: dict[Any, list[tuple[Term, Ids]]] = {}
        # By the id of a unit, which is kept so that no other gets the same.
        self._parts: dict[int, tuple[Unit, list[Unit]]] = {}
        self._columns: dict[int, tuple[Unit, list[Unit]]] = {}
        self._slices: dict[int, tuple[Unit, list[Unit]]] = {}

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

    def _units(self, site: Site, place: int) -> list[tuple[Term, Ids]]:
        params = site.step.params
        form: Any = ()
        if site.step.name == "dot_general" or site.step.name == "conv_general_dilated":
            form = (place, params["dimension_numbers"])
        key = (site.weight, site.role, str(form))
        if key not in self._canonical:
            self._canonical[key] = [
                (term._replace(ids=_NONE), Ids.of(self._maker(site, place, i)))
                for i, term in enumerate(self.terms.of(site.weight))
            ]
        return self._canonical[key]

    def _maker(self, site: Site, place: int, which: int) -> Callable[[], np.ndarray]:
        """What makes the numbers of a term of what a site reads."""

        def make() -> np.ndarray:
            term = self.terms.of(site.weight)[which]
            if term.mixed:
                return term.ids.reshape(1, -1)
            return canonical(site.step, site.role, place, term.ids)

        return make

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
                    for chosen, cut in cuts(self.flat, self.terms, unit)
                ]
            self._columns[id(unit)] = unit, parts
        return self._columns[id(unit)][1]

    def slices(self, unit: Unit) -> list[Unit]:
        """The parts of a unit along each axis that its outputs have: heads, experts."""
        if id(unit) not in self._slices:
            self._slices[id(unit)] = unit, list(self._sliced(unit))
        return self._slices[id(unit)][1]

    def _sliced(self, unit: Unit) -> Iterator[Unit]:
        form = axes_of(self.flat, self.terms, unit)
        numbers = np.arange(unit.form[1]).reshape(form or -1)
        for axis, size in enumerate(form):
            if 1 < size <= min(_MOST, numbers.size - 1):
                for i in range(size):
                    chosen = numbers.take(i, axis).ravel()
                    yield self._part(unit, slice(None), None, chosen, ())

    def parts(self, unit: Unit) -> list[Unit]:
        """A unit taken apart, as its data are joined and its outputs cut."""
        if id(unit) not in self._parts:
            self._parts[id(unit)] = unit, list(self._apart(unit))
        return self._parts[id(unit)][1]

    def _apart(self, unit: Unit) -> Iterator[Unit]:
        site = unit.site
        rows = self.pieces(site) if site.role == "linear" else []
        columns = cuts(self.flat, self.terms, unit)
        if len(rows) < 2 and len(columns) < 2:
            return
        start = 0
        whole = np.arange(unit.form[1])
        for row, size in enumerate([self.flat.size(x) for x in rows] or [0]):
            inputs = slice(None)
            if len(rows) > 1:
                lead = self.flat.size(site.data) // unit.form[0]
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
        ids = Ids.of(lambda: unit.ids[inputs][:, chosen])
        some = chosen if ids.shape[1] < unit.form[1] else None
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
        if unit.rows is None or unit.rows < 0:
            return unit.site.data
        return self.pieces(unit.site)[unit.rows]

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
