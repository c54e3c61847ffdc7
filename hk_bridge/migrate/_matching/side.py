"""One of the two programs, with its weights and where they stand."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.arithmetic import run_all
from hk_bridge.migrate._matching.arithmetic import widened
from hk_bridge.migrate._matching.flat import CONSTANT
from hk_bridge.migrate._matching.flat import WEIGHT
from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.movement import NEUTRAL
from hk_bridge.migrate._matching.movement import TURNS
from hk_bridge.migrate._matching.prints import Prints
from hk_bridge.migrate._matching.sites import Sites
from hk_bridge.migrate._matching.trees import PARAMS
from hk_bridge.migrate._matching.units import Site

_SKIPPED = {*TURNS, "add", "add_any", "slice", "split", "squeeze", "scan_slice"}


_SMALL = 0.1  # of the size of weights where all is small; inputs and variances: squared
_HOPS = 8  # how many turns and sums in a row are passed over
DEEP = 5  # how many steps after a value are looked at, to tell it by them


class Side:
    """A program, the names of its weights and what is known of its values.

    Attributes:
      flat: the program.
      names: of the weights, in order.
      sites: where they stand.
      prints: of its values.
      outputs: what each output is called.
    """

    def __init__(self, flat: Flat, names: Sequence[str], outputs: Sequence[str]):
        self.flat, self.names, self.outputs = flat, list(names), list(outputs)
        self.sites = Sites(flat)
        self.prints = Prints()
        self._colours: dict[tuple[int, int, int], tuple[int, ...]] = {}

    @property
    def terms(self) -> Any:
        """The terms of its values."""
        return self.sites.terms

    def given(self, weights: Sequence[Any], inputs: Sequence[Any]) -> dict[int, Any]:
        """Values by number, for the weights and the inputs."""
        numbers = [*self.flat.weights, *self.flat.inputs]
        return dict(zip(numbers, [*weights, *inputs], strict=True))

    def cut(self, weights: np.ndarray) -> list[np.ndarray]:
        """The weights, as views of all their elements in a row."""
        starts = self.terms.starts
        return [
            weights[starts[i] : starts[i + 1]].reshape(self.flat.shape(number))
            for i, number in enumerate(self.flat.weights)
        ]

    def run(
        self, weights: Sequence[Any], inputs: Sequence[Any], keep: set[int]
    ) -> dict[int, Any]:
        """Runs it and takes prints of what depends on inputs; some values are kept."""
        kept: dict[int, Any] = {}

        def look(number: int, value: Any) -> None:
            if self.flat.is_data(number) or number in keep:
                self.prints.add(number, value)
            if number in keep:
                kept[number] = np.asarray(value)

        given = self.given(weights, inputs)
        run_all(self.flat, given, look, steps=self.flat.all_data)
        return kept

    def colour(self, value: int, deep: int = DEEP) -> int:
        """Equal where the steps are that follow a value, whatever the weights."""
        return hash(tuple(sorted(self._after(value, deep, _HOPS))))

    def _after(self, value: int, deep: int, hops: int) -> tuple[int, ...]:
        """The steps that read a value, or a turn of it or a sum with it."""
        key = (value, deep, hops)
        if key not in self._colours:
            seen: list[int] = []
            for step in self.flat.readers[value] if hops else ():
                if step.name in _SKIPPED or self._is_scale(step, value):
                    for out in step.outs:
                        seen += self._after(out, deep, hops - 1)
                    continue
                below = [self.colour(out, deep - 1) for out in step.outs if deep]
                place = "" if step.name == "mul" else step.ins.index(value)
                beside = [self._beside(x, 3) for x in step.ins if x != value]
                seen.append(hash((step.name, place, tuple(sorted(beside)), *below)))
            self._colours[key] = tuple(seen)
        return self._colours[key]

    def _is_scale(self, step: Step, value: int) -> bool:
        """Whether a value is multiplied by a number, which may stand elsewhere."""
        others = [x for x in step.ins if x != value]
        return (
            step.name in ("mul", "div")
            and len(others) == 1
            and (step.name == "mul" or step.ins[0] == value)
            and self.terms.scalar(others[0]) is not None
        )

    def _beside(self, value: int, deep: int) -> str:
        """What a value comes from, in a few words."""
        while (step := self.flat.makers[value]) is not None and (
            step.name in NEUTRAL or self._is_scale(step, step.ins[0])
        ):
            value = step.ins[0]
        kind = self.flat.kinds[value]
        if step is None or kind != 2 or not deep:
            return (
                "constant" if kind == CONSTANT else "weight" if kind == WEIGHT else "x"
            )
        if step.name in _SKIPPED:
            return min(self._beside(x, deep - 1) for x in step.ins)
        return step.name


def order_of(sites: Sequence[Site]) -> dict[int, int]:
    """The place of each site in the program, by its step."""
    return {site.step.position: place for place, site in enumerate(sites)}


def generic(
    leaves: Mapping[str, Any], seed: int = 0, *, small: bool = False
) -> Iterator[np.ndarray]:
    """Weights much like these, none of which is the same as another, in float64.

    What starts as zeros or ones would hide which is which. What is never negative
    (a variance) stays so. `small` is so that an epsilon counts beside a variance.
    """
    rng = np.random.default_rng(seed)
    for name, leaf in leaves.items():
        value = widened(np.asarray(leaf))
        if value.dtype.kind != "f" or not value.size:
            yield value
            continue
        finite = np.nan_to_num(value, posinf=1.0, neginf=-1.0)
        size = float(np.sqrt(np.mean(finite**2))) or 0.3
        noise = rng.standard_normal(value.shape) * (0.25 * size)
        new = finite * rng.uniform(0.7, 1.3, value.shape) + noise
        positive = bool((finite >= 0).all() and finite.any())
        if positive:
            new = np.abs(new) + 0.05 * size
        is_variance = positive and not name.startswith(f"{PARAMS}/")
        yield new * (_SMALL**2 if is_variance else _SMALL) if small else new


def moved_inputs(
    inputs: Sequence[Any], seed: int = 1, *, small: bool = False
) -> list[Any]:
    """Inputs much like these, so that constant ones do not hide what differs.

    Whole numbers, and arrays of zeros and ones, which may be masks, stay as they are.
    What is tiny is not: there each activation would be as good as none.
    """
    rng = np.random.default_rng(seed)
    made: list[Any] = []
    for value in inputs:
        wide = widened(value) if str(value.dtype)[:3] != "key" else value
        fixed = getattr(wide.dtype, "kind", "") != "f" or bool(
            np.isin(wide, (0.0, 1.0)).all() and len(np.unique(np.asarray(wide))) > 1
        )
        if fixed:
            made.append(wide)
            continue
        array = np.asarray(wide)
        size = float(array.std()) or 1.0
        moved = array + 0.2 * size * rng.standard_normal(array.shape)
        new = _SMALL**2 if small else 1.0 if size < _SMALL else size
        made.append(new / size * moved)
    return made


def is_movement(step: Step) -> bool:
    """Whether a step only turns what it reads."""
    return step.name in TURNS
