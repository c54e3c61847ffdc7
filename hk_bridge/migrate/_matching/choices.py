"""What a search notes: choices to come back to, and places where programs part."""

from collections.abc import Callable
import dataclasses
from typing import Any

from hk_bridge.migrate._matching.holdings import Option
from hk_bridge.migrate._matching.units import Site

Taint = frozenset[int]


@dataclasses.dataclass(eq=False)
class Choice:
    """A choice among several options, and all that is needed to come back to it."""

    position: int
    options: list[Option]
    taken: int
    env: dict[int, Any]
    taints: dict[int, Taint]
    length: int
    rivals: int

    @property
    def option(self) -> Option:
        return self.options[self.taken]


@dataclasses.dataclass(eq=False)
class Fault:
    """Where Haiku's program is not Flax's.

    Attributes:
      value: of Haiku, which is none of Flax's.
      other: of Flax, its likely counterpart; None if there is none.
      site: where it was noticed, if not at an output.
      flax_site: its likely counterpart.
      output: the output that it was noticed at.
      inside: whether the step at the site itself is what differs.
      position: the step of Haiku at which it was noticed.
      known: the leaves of Haiku, and those of Flax, that were found before.
    """

    value: int
    other: int | None
    site: Site | None = None
    flax_site: Site | None = None
    output: int | None = None
    inside: bool = False
    position: int = 0
    known: tuple[set[str], set[str]] = (set(), set())


class Stuck(Exception):
    """A value is none of Flax's, whatever the weights, as they are chosen now."""

    def __init__(self, taint: Taint, give_up: Callable[[], None]):
        super().__init__()
        self.taint, self.give_up = taint, give_up
