"""Where weights meet data, and what stands there."""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import numpy as np

from hk_bridge.migrate._matching.flat import Step

# What a scaled weight, or scaled data, makes scaled, and no more.
HOMOGENEOUS = {"linear", "product"}


class Ids(NamedTuple):
    """Numbers of elements of weights, made when they are asked for.

    Those of all weights would take as much memory as these."""

    make: Callable[[], np.ndarray]
    shape: tuple[int, ...]
    first: int

    @classmethod
    def of(cls, make: Callable[[], np.ndarray]) -> "Ids":
        """Those that a function makes."""
        made = make()
        return cls(make, made.shape, int(made.flat[0]) if made.size else -1)


@dataclasses.dataclass(eq=False)
class Unit:
    """Weights of one leaf or several that do one thing at a site.

    Attributes:
      site: where.
      held: the numbers of the elements `[K, N]`, inputs by outputs.
      done: what was done to them before.
      plus: what is added to them, before or after.
      rows: which part of a joined input they read; None for all of it, less than zero
        for a part along an axis.
      columns: which of the outputs they make, in order; None for all.
      cut: the values that these outputs become, if they are cut out.
      turned: whether the order of these is another than in the program.
      mixed: whether elements of the weights met each other before.
    """

    site: "Site"
    held: Ids
    done: tuple[str, ...]
    plus: float
    rows: int | None = None
    columns: np.ndarray | None = None
    cut: tuple[int, ...] = ()
    mixed: bool = False
    turned: bool = False

    @property
    def ids(self) -> np.ndarray:
        """The numbers of the elements, made anew each time."""
        return self.held.make()

    @property
    def form(self) -> tuple[int, ...]:
        """The shape of these."""
        return self.held.shape

    @property
    def first(self) -> int:
        """The first of these."""
        return self.held.first

    @property
    def chosen(self) -> np.ndarray:
        """Which of the outputs they make, in order."""
        if self.columns is None:
            return np.arange(self.form[1])
        return self.columns


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
