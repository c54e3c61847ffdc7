"""What one step did, as far as it tells two programs apart."""

import dataclasses
import math
from typing import Any

from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.movement import MOVES
from hk_bridge.migrate._matching.prints import are_close
from hk_bridge.migrate._matching.side import Side

# Padding comes last: SAME makes another one of other strides.
CONV: tuple[str, ...] = ("window_strides", "rhs_dilation", "lhs_dilation")
CONV += ("feature_group_count", "batch_group_count", "padding")


@dataclasses.dataclass(frozen=True, eq=False)
class Did:
    """What a step did.

    Attributes:
      step: which.
      numbers: its constant operands, `(place, number)`.
      leaves: the weights that it reads.
      data: the shapes of its other operands.
      out: the shape of its result.
      inner: constants in its weights.
      is_new: whether it reads weights that were not found before.
      is_drawn: whether it reads random numbers.
      is_folded: whether it adds a number to a bias, which may be part of the bias.
    """

    step: Step
    numbers: tuple[tuple[int, float], ...]
    leaves: tuple[str, ...]
    data: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]
    inner: tuple[float, ...]
    is_new: bool
    is_drawn: bool
    is_folded: bool

    @property
    def is_plain(self) -> bool:
        """Whether it is no guard against NaN, as `jnp.var` has."""
        return not any(math.isnan(number) for _, number in self.numbers)

    @property
    def is_product(self) -> bool:
        """Whether it is the product of two values."""
        return self.name == "dot_general" and len(self.data) == 2

    @property
    def is_sum(self) -> bool:
        """Whether it adds two values."""
        return self.name in ("add", "add_any") and len(self.data) == 2

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def key(self) -> Any:
        """Equal for what does the same, as far as one step tells."""
        more: Any = ()
        if self.name.startswith("reduce_") or self.name in ("argmax", "cumsum"):
            more = str(self.step.params.get("axes", self.step.params.get("axis")))
        if self.name == "conv_general_dilated":
            more = tuple(str(self.step.params.get(k)) for k in CONV)
        if self.name == "integer_pow":
            more = self.step.params["y"]
        numbers: Any = self.numbers
        if self.name not in ("sub", "div"):
            numbers = tuple(sorted(number for _, number in self.numbers))
        return self.name, numbers, bool(self.leaves), more, tuple(sorted(self.inner))


def is_shift(side: Side, step: Step) -> bool:
    """Whether what a step gives tells nothing of what it does.

    An epsilon is too small to be seen, and a sum with zeros is the other operand."""
    numbers = [side.terms.scalar(operand) for operand in step.ins]
    if step.name == "mul" and any(number in (0.0, 1.0) for number in numbers):
        return True
    if step.name == "add" and any(number is not None for number in numbers):
        return True
    some = [side.prints.of.get(value) for value in (*step.outs[:1], *step.ins)]
    known = [one for one in some if one is not None]
    is_sum = step.name == "add" and len(known) == 3
    return is_sum and any(are_close(known[0], x, ordered=True) for x in known[1:])


def is_folded(side: Side, step: Step) -> bool:
    """Whether a step adds a number right after a bias."""
    if step.name not in ("add", "sub") or side.terms.scalar(step.ins[-1]) is None:
        return False
    maker = side.flat.makers[side.flat.back(step.ins[0], MOVES)]
    return maker is not None and any(s.role == "sum" for s in side.sites.at(maker))
