"""The values of Haiku's program, computed as far as the weights are found."""

from collections.abc import Sequence
from typing import Any

from hk_bridge.migrate._matching.arithmetic import run
from hk_bridge.migrate._matching.arithmetic import widened
from hk_bridge.migrate._matching.choices import Taint
from hk_bridge.migrate._matching.flat import WEIGHT
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.holdings import Holdings
from hk_bridge.migrate._matching.side import Side


class Values:
    """Values by number, and the open choices that each depends on."""

    def __init__(self, side: Side, held: Holdings, inputs: Sequence[Any]):
        self.side, self.held = side, held
        flat = side.flat
        self.env = {n: widened(v) for n, v in flat.constants.items()}
        self.env |= {n: widened(v) for n, v in zip(flat.inputs, inputs, strict=True)}
        self.taints: dict[int, Taint] = {}
        self._weights: dict[int, Any] = {}  # and what is made of them alone
        self._places = {number: i for i, number in enumerate(flat.weights)}
        # Parts of joined data are looked at again where these are read.
        self._later = {x for site in side.sites.all for x in side.sites.pieces(site)}
        for number in flat.inputs:
            side.prints.add(number, self.env[number])

    def value(self, number: int) -> Any:
        """A value, computed from the weights if it has to be."""
        if number in self.env:
            return self.env[number]
        if number in self._weights:
            return self._weights[number]
        if number in self._places:
            place = self._places[number]
            weight = self.held.weight(place)
            if not self.held.missing[place]:
                self._weights[number] = weight
            return weight
        flat = self.side.flat
        step = flat.makers[number]
        assert step is not None, "An input has no value."
        operands = [self.value(x) for x in step.ins]
        results = run(step, operands, [flat.avals[x] for x in step.ins])
        places = self.side.terms.places(number) if flat.kinds[number] == WEIGHT else ()
        if not any(self.held.missing[place] for place in places):
            env = self._weights if places else self.env
            env |= zip(step.outs, results, strict=True)
        return results[step.outs.index(number)]

    def run(self, step: Step, choice: int | None = None) -> None:
        """Runs a step, whose weights are found."""
        values = [self.value(x) for x in step.ins]
        taint = self.taint_of(step)
        if choice is not None:
            taint |= {choice}
        avals = [self.side.flat.avals[x] for x in step.ins]
        for number, made in zip(step.outs, run(step, values, avals), strict=True):
            self.put(number, made)
            if taint:
                self.taints[number] = taint
        for number in self.side.flat.done[step.position]:
            self._weights.pop(number, None)  # and made again if it is asked for
            if self.side.flat.is_data(number) and number not in self._later:
                self.env.pop(number, None)

    def put(self, number: int, value: Any) -> None:
        """Sets a value."""
        self.env[number] = value
        self.side.prints.add(number, value)

    def taint_of(self, step: Step) -> Taint:
        """The positions of the open choices that the operands of a step depend on."""
        return self.taint(*step.ins)

    def taint(self, *numbers: int) -> Taint:
        """The positions of the open choices that values depend on."""
        nothing: Taint = frozenset()
        return nothing.union(*(self.taints.get(number, nothing) for number in numbers))

    def copy(self) -> tuple[dict[int, Any], dict[int, Taint]]:
        """What `restore` takes."""
        return dict(self.env), dict(self.taints)

    def restore(self, env: dict[int, Any], taints: dict[int, Taint]) -> None:
        """Goes back to what `copy` gave."""
        self.env, self.taints = dict(env), dict(taints)
        self._weights = {}
