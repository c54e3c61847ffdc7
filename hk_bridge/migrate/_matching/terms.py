"""Which elements of which weights a value made of weights is, and what was done to it.

The elements of all weights of a side are numbered in a row. A value that is a weight
turned, cut or joined is told by an array of such numbers in its own shape.
"""

from typing import Any
from typing import NamedTuple

import numpy as np

from hk_bridge.migrate._matching.arithmetic import LOOPS
from hk_bridge.migrate._matching.arithmetic import run
from hk_bridge.migrate._matching.flat import CONSTANT
from hk_bridge.migrate._matching.flat import WEIGHT
from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.movement import ELEMENTWISE
from hk_bridge.migrate._matching.movement import JOINS
from hk_bridge.migrate._matching.movement import MOVES
from hk_bridge.migrate._matching.movement import NEUTRAL
from hk_bridge.migrate._matching.movement import moved
from hk_bridge.migrate._matching.quick import quick

# What is the same done in two ways: by the power of the operand.
_POWERS = {"rsqrt": "power -1/2", "sqrt": "power 1/2"}
# What makes numbers of numbers.
_NUMBERS = {"add", "sub", "mul", "div", "pow", "integer_pow", "sqrt", "rsqrt", "neg"}
_MOST = 1 << 20  # how many numbers of elements are remembered
SCALED = "scaled"  # by one number
_JOINED = {"mul", "add", "add_any", "sub", "div"}


class Term(NamedTuple):
    """Weights in a value.

    Attributes:
      ids: the number of each element, in the shape of the value; -1 is no weight.
      done: what was done to them elementwise, the last first.
      plus: what was added to them, before anything else was done.
      mixed: whether elements of a weight met each other: then the numbers are those of
        all the weight, in its own shape.
    """

    ids: np.ndarray
    done: tuple[str, ...] = ()
    plus: float = 0.0
    mixed: bool = False


class Terms:
    """The terms of the values of one program.

    Attributes:
      flat: the program.
      starts: the number of the first element of each weight, and that after the last.
      total: how many elements there are.
      dtype: of their numbers.
    """

    def __init__(self, flat: Flat):
        self.flat = flat
        sizes = [flat.size(weight) for weight in flat.weights]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.total = int(self.starts[-1])
        self.dtype: Any = np.int32 if self.total < 2**31 else np.int64
        self._places = {weight: i for i, weight in enumerate(flat.weights)}
        self._known: dict[int, list[Term]] = {}
        self._size = 0
        self._constants: dict[int, Any] = {}

    def ids(self, place: int) -> np.ndarray:
        """The numbers of the elements of a weight, in its shape."""
        start, end = self.starts[place : place + 2]
        shape = self.flat.shape(self.flat.weights[place])
        return np.arange(start, end, dtype=self.dtype).reshape(shape)

    def whose(self, number: int) -> int:
        """Which weight an element is of."""
        return int(np.searchsorted(self.starts, number, "right")) - 1

    def of(self, value: int) -> list[Term]:
        """The terms of a value that is made of weights alone."""
        if self.flat.kinds[value] != WEIGHT:
            return []
        if value in self._places:
            return [Term(self.ids(self._places[value]))]
        if value in self._known:
            return self._known[value]
        made = self._made(value)
        self._size += sum(term.ids.size for term in made)
        if self._size > _MOST:
            self._known, self._size = {}, 0
        self._known[value] = made
        return made

    def places(self, value: int) -> set[int]:
        """Which weights a value is made of, through whatever."""
        found, todo, seen = set(), [value], {value}
        while todo:
            value = todo.pop()
            if value in self._places:
                found.add(self._places[value])
            step = self.flat.makers[value]
            for operand in step.ins if step is not None else ():
                if operand not in seen and self.flat.kinds[operand] == WEIGHT:
                    seen.add(operand)
                    todo.append(operand)
        return found

    def _made(self, value: int) -> list[Term]:
        step = self.flat.makers[value]
        assert step is not None, "A weight has no step."
        if step.name in MOVES:
            return self._moved(step, step.outs.index(value))
        shape = self.flat.shape(value)
        operands = [x for x in step.ins if self.flat.kinds[x] == WEIGHT]
        if step.name not in ELEMENTWISE or len(step.outs) > 1:
            return self._whole(step, value)
        terms = []
        for place, operand in enumerate(step.ins):
            for term in self.of(operand):
                if not term.mixed:
                    term = term._replace(ids=np.broadcast_to(term.ids, shape))
                terms.append(self._done(step, place, term, len(operands) > 1))
        return terms

    def _done(self, step: Step, place: int, term: Term, joined: bool) -> Term:
        name = _POWERS.get(step.name, step.name)
        if joined:
            if name in ("mul", "add", "add_any") or place == 0:
                return (
                    term if name in _JOINED else term._replace(done=(name, *term.done))
                )
            done = (*term.done,)
            if name == "div" and done[:1] == ("power 1/2",):
                return term._replace(done=("power -1/2", *done[1:]))
            return term._replace(done=(f"{name} {place}", *done))
        others = [x for x in step.ins if self.flat.kinds[x] == CONSTANT]
        if name in ("add", "add_any", "sub") and others and not term.done:
            number = self.scalar(others[0])
            if number is not None and (name != "sub" or place == 0):
                sign = -1 if name == "sub" else 1
                return term._replace(plus=term.plus + sign * number)
        if others and (name == "mul" or (name == "div" and place == 0)):
            word = "times" if self.scalar(others[0]) is None else SCALED
            return term._replace(done=(word, *term.done))
        return term._replace(done=(f"{name} {place}" if others else name, *term.done))

    def scalar(self, value: int) -> float | None:
        """The number that a constant is, if it is the same everywhere."""
        value = self.flat.back(value, ("broadcast_in_dim", *NEUTRAL))
        held, step = self.flat.constants.get(value), self.flat.makers[value]
        if held is not None:
            real = np.size(held) == 1 and not np.iscomplexobj(held)
            return float(held) if real else None
        if (
            step is None
            or step.name not in _NUMBERS
            or self.flat.kinds[value] != CONSTANT
        ):
            return None
        numbers = [self.scalar(operand) for operand in step.ins]
        if any(number is None for number in numbers):
            return None
        with np.errstate(all="ignore"):
            made = quick(
                step.name,
                step.params,
                [np.float64(n) for n in numbers if n is not None],
            )
        return None if made is None else float(made)

    def known(self, value: int) -> Any:
        """A value that depends on no weight and no input; None if it is none."""
        step = self.flat.makers[value]
        if value in self.flat.constants or self.flat.kinds[value] != CONSTANT:
            return self.flat.constants.get(value)
        if value not in self._constants and step is not None:
            operands = [self.known(operand) for operand in step.ins]
            avals = [self.flat.avals[operand] for operand in step.ins]
            if step.name in LOOPS or any(x is None for x in operands):
                return None
            made = run(step, operands, avals, wide=False)
            self._constants.update(zip(step.outs, made, strict=True))
        return self._constants.get(value)

    def _whole(self, step: Step, value: int) -> list[Term]:
        """Terms of a value in which elements of weights meet: by the weight alone."""
        return [
            Term(self.ids(place), (f"in {step.name}",), mixed=True)
            for place in sorted(self.places(value))
        ]

    def _moved(self, step: Step, out: int) -> list[Term]:
        weights = [x for x in step.ins if self.flat.kinds[x] == WEIGHT]
        if step.name in JOINS and len(step.ins) > 1:
            return self._joined(step)
        known = [self.known(x) for x in step.ins[1:]]
        plain = step.ins[0] in weights and len(weights) == 1
        if not plain or any(x is None for x in known):
            return self._whole(step, step.outs[out])
        return [
            term
            if term.mixed
            else term._replace(ids=moved(step, [term.ids], known)[out])
            for term in self.of(step.ins[0])
        ]

    def _joined(self, step: Step) -> list[Term]:
        parts = []
        for value in step.ins if step.name != "pad" else step.ins[:1]:
            terms = self.of(value) or [Term(np.full(self.flat.shape(value), -1))]
            parts.append(terms)
        first = parts[0][0]
        if any(len(terms) != 1 or terms[0].mixed for terms in parts):
            return self._whole(step, step.outs[0])
        ids = moved(step, [terms[0].ids for terms in parts], [None])[0]
        return [Term(ids, first.done, first.plus)]
