"""Where weights meet data, and what stands there."""

import dataclasses

import numpy as np

from hk_bridge.migrate._matching.flat import Step

# What a scaled weight, or scaled data, makes scaled, and no more.
HOMOGENEOUS = {"linear", "product"}


@dataclasses.dataclass(eq=False)
class Unit:
    """Weights of one leaf or several that do one thing at a site.

    Attributes:
      site: where.
      ids: the numbers of the elements `[K, N]`, inputs by outputs.
      done: what was done to them before.
      plus: what is added to them, before or after.
      rows: which part of a joined input they read; None for all of it, less than zero
        for a part along an axis.
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

    @property
    def chosen(self) -> np.ndarray:
        """Which of the outputs they make, in order."""
        if self.columns is None:
            return np.arange(self.ids.shape[1])
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
