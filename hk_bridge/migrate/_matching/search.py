"""The search: Haiku's program is run step by step, its weights found as they are read.

At a site the data are known, and so are the places in Flax that have the same data. One
of these is chosen; the choice is settled when a value that all of its rivals lead to is
one of Flax's. If a value is none of Flax's, the open choices are tried again, the last
first. If none of them helps, this is where the programs part: the place is noted, and
the search goes on with Flax's value.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from hk_bridge.migrate._matching.candidates import Finder
from hk_bridge.migrate._matching.checks import is_right
from hk_bridge.migrate._matching.choices import Choice
from hk_bridge.migrate._matching.choices import Fault
from hk_bridge.migrate._matching.choices import Stuck
from hk_bridge.migrate._matching.choices import Taint
from hk_bridge.migrate._matching.flat import DATA
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.holdings import Holdings
from hk_bridge.migrate._matching.holdings import Option
from hk_bridge.migrate._matching.known import Flax
from hk_bridge.migrate._matching.prints import print_of
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.units import Site
from hk_bridge.migrate._matching.values import Values

# How often the search goes back to open choices for one value that is none of Flax's.
_TRIES = 100


class Search:
    """One search.

    Attributes:
      held: the weights of Haiku.
      faults: where the programs part, in order.
      sure: how many options were held before; None if they do not part.
      tied: options that would have done as well as those that were taken.
      tried: how many options were tried.
    """

    def __init__(
        self,
        flax: Flax,
        haiku: Side,
        held: Holdings,
        inputs: Sequence[Any],
        tick: Callable[[int], None],
    ):
        self.flax, self.haiku, self.held, self.tick = flax, haiku, held, tick
        self.finder = Finder(flax, haiku, held)
        self.faults: list[Fault] = []
        self.sure: int | None = None
        self.tied: list[tuple[Option, Option]] = []
        self.tried = 0
        self.compared: set[int] = set()
        self.choices: list[Choice] = []
        self.position = 0
        self._pending: Choice | None = None
        self._forced: dict[int, Option] = {}
        self._best: tuple[int, list[Choice]] = (-1, [])
        self._path: dict[int, Option] = {}
        self._hopeless = -1
        self._tries = 0
        self._last = -1
        self._checking = False
        self.values = Values(haiku, held, inputs)

    # The walk.

    def go(self, finish: Callable[["Search"], None]) -> None:
        """Runs the search; `finish` compares the outputs."""
        with jax.enable_x64(True):
            while True:
                try:
                    self._walk(len(self.haiku.flat.steps))
                    finish(self)
                    return
                except Stuck as stuck:
                    if not self._retry(stuck.taint):
                        stuck.give_up()

    def _walk(self, end: int) -> None:
        steps = self.haiku.flat.steps
        while self.position < end:
            step = steps[self.position]
            if not self._checking:
                self.tick(self.position)
            if step.outs and self.haiku.flat.kinds[step.outs[0]] == DATA:
                self._advance(step)
            self.position += 1

    def _advance(self, step: Step) -> None:
        pending, self._pending = self._pending, None
        sites = [
            site
            for site in self.haiku.sites.at(step)
            if any(map(self.held.is_open, site.units)) and not self._is_blind(site)
        ]
        if not sites:
            self.values.run(step)
            return
        if pending is not None:
            options, first = pending.options, pending.taken + 1
        elif step.position in self._forced:
            options, first = [self._forced[step.position]], 0
        else:
            options, first = self.finder.options(sites, self.values.value), 0
            if not options:
                raise Stuck(self.values.taint_of(step), lambda: self._part(step, sites))
            self._settle(sites, options)
        self._choose(step, options, first)

    def _is_blind(self, site: Site) -> bool:
        """Whether a site has nothing but zeros: then no weight makes a difference."""
        return site.role == "linear" and not np.any(self.values.value(site.data))

    def _choose(self, step: Step, options: list[Option], first: int) -> None:
        """Takes the first option, from `first` on, whose result is Flax's."""
        length = len(self.held.options)
        env, taints = self.values.copy()
        for taken in range(first, len(options)):
            self.tried += 1
            self.held.assign(options[taken])
            is_last = taken + 1 == len(options)
            self.values.run(step, None if is_last else step.position)
            if is_right(self.flax, self.haiku, step, options[taken]):
                if not is_last:
                    rivals = self.flax.bits(options)
                    choice = Choice(
                        step.position, options, taken, env, taints, length, rivals
                    )
                    self.choices.append(choice)
                self._last = self.flax.place(options[taken][0][1].site)
                return
            self.held.undo(length)
            self.values.restore(env, taints)
        taint = self.values.taint_of(step)
        raise Stuck(taint, lambda: self._differ(step, options[0]))

    # Choices.

    def _settle(self, sites: list[Site], options: list[Option]) -> None:
        """Settles the choices of which the data of a site show that they are right.

        One value has to depend on all rivals: of several each may be right alone."""
        taint = self.values.taint(*(site.data for site in sites))
        for _, other in options[0]:
            self.close(taint, self.flax.mask(other.site.data))

    def close(self, taint: Taint, mask: int) -> None:
        """Settles the choices that a right value depends on, as on all their rivals."""
        done = [c for c in self.choices if c.position in taint]
        done = [choice for choice in done if choice.rivals & mask == choice.rivals]
        if not done or self._checking:
            return
        for choice in done:
            self._look_for_ties(choice)
        self.choices = [choice for choice in self.choices if choice not in done]
        self._best, self._tries = (-1, []), 0

    def _retry(self, taint: Taint) -> bool:
        """Goes back to the last open choice among these; False if there is none."""
        if self.position > self._best[0] and self.choices:
            self._best = self.position, list(self.choices)
            self._path = {choice.position: choice.option for choice in self.choices}
        if self.position <= self._hopeless:
            return False
        while self.choices and self._tries < _TRIES:
            choice = self.choices[-1]
            if choice.position in taint:
                self._tries += 1
                taint |= self._restore(choice)
                if choice.taken + 1 < len(choice.options):
                    self._pending = dataclasses.replace(choice)
                    return True
            else:
                self._restore(choice)
        return self._resign()

    def _resign(self) -> bool:
        """Goes the way that led farthest once more, for good."""
        self._tries = 0
        (position, path), self._best = self._best, (-1, [])
        if not path:
            return False
        self._restore(path[0])
        self._forced, self._hopeless = self._path, position
        return True

    def _restore(self, choice: Choice) -> Taint:
        """Goes back to before a choice; what the data there depend on."""
        self.choices = [c for c in self.choices if c.position < choice.position]
        self.held.undo(choice.length)
        self.values.restore(choice.env, choice.taints)
        self.position = choice.position
        return self.values.taint_of(self.haiku.flat.steps[choice.position])

    def _look_for_ties(self, choice: Choice) -> None:
        """Whether another option would have led to the same values."""
        mine = self._looks(choice.option)
        others = [o for o in choice.options if o is not choice.option]
        for other in [o for o in others if self._looks(o) == mine][:2]:
            if self._leads_on(choice, other):
                self.tied.append((choice.option, other))

    def _looks(self, option: Option) -> list[int]:
        return [self.finder.colour(self.flax.side, other) for _, other in option]

    def _leads_on(self, choice: Choice, option: Option) -> bool:
        """Whether the search comes as far again with another option of a choice."""
        now = self.position, list(self.choices), self._last
        before = self.values.copy()
        later = self.held.options[choice.length :]
        self._checking, forced = True, self._forced
        self._restore(choice)
        self._forced = {choice.position: option}
        try:
            self._walk(now[0])
            step = (
                self.haiku.flat.steps[now[0]]
                if now[0] < len(self.haiku.flat.steps)
                else None
            )
            sites = list(self.haiku.sites.at(step)) if step is not None else []
            return step is None or bool(self.finder.options(sites, self.values.value))
        except Stuck:
            return False
        finally:
            self.held.undo(choice.length)
            for done in later:
                self.held.assign(done)
            self.position, self.choices, self._last = now
            self.values.restore(*before)
            self._checking, self._forced = False, forced

    # Where it parts.

    def _part(self, step: Step, sites: list[Site]) -> None:
        """Notes that the data of a site are none that Flax has there, and goes on."""
        for site in sites:
            option = self.finder.likely(site, self._last)
            other = option[0][1].site if option else None
            value = self.haiku.sites.data(option[0][0]) if option else site.data
            theirs = self.flax.side.sites.data(option[0][1]) if option else None
            self.note(Fault(value, theirs, site, other))
            known = self.flax.side.prints.find(print_of(self.values.value(value)))
            if theirs is not None and value == site.data and not known:
                self.replace(value, theirs)
            self.held.assign(option)
            if other is not None:
                self._last = self.flax.place(other)
            for unit in site.units:
                self.held.lose(unit)
        self.values.run(step)
        self.position += 1

    def _differ(self, step: Step, option: Option) -> None:
        """Notes that a step does something else with the same data and weights."""
        self.held.assign(option)
        self.values.run(step)
        unit, other = option[0]
        fault = Fault(step.outs[0], other.site.out, unit.site, other.site, inside=True)
        self.note(fault)
        self.replace(step.outs[0], other.site.out)
        self._last = self.flax.place(other.site)
        self.position += 1

    def note(self, fault: Fault) -> None:
        """Notes where the programs part; what is known by then, at the first place."""
        if not self.faults:
            ours = self.held.missing < np.diff(self.haiku.terms.starts)
            theirs = self.held.taken(self.flax.side.terms.starts)
            sides = ((self.haiku, ours), (self.flax.side, theirs))
            one, two = (
                {name for name, found in zip(side.names, some, strict=True) if found}
                for side, some in sides
            )
            fault.known, fault.position = (one, two), self.position
            self.sure = len(self.held.options)
        self.faults.append(fault)

    def replace(self, value: int, other: int) -> None:
        """Puts Flax's value in place of Haiku's, if it has as many elements."""
        held = self.flax.kept.get(other)
        shape = self.haiku.flat.shape(value)
        if held is not None and held.size == int(np.prod(shape)):
            self.values.env[value] = held.reshape(shape)
            self.values.taints.pop(value, None)
