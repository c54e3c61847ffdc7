"""The search for one pair of networks, from their programs to what was found."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from hk_bridge.migrate._averages import LATE
from hk_bridge.migrate._averages import averages
from hk_bridge.migrate._matching.choices import Fault
from hk_bridge.migrate._matching.choices import Stuck
from hk_bridge.migrate._matching.ends import give_kept
from hk_bridge.migrate._matching.ends import give_returned
from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.holdings import UNKNOWN
from hk_bridge.migrate._matching.holdings import Holdings
from hk_bridge.migrate._matching.known import Flax
from hk_bridge.migrate._matching.known import wanted
from hk_bridge.migrate._matching.prints import are_close
from hk_bridge.migrate._matching.search import Search
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.side import generic
from hk_bridge.migrate._matching.side import moved_inputs
from hk_bridge.migrate._matching.trace import Network


@dataclasses.dataclass(eq=False)
class Solved:
    """What a search came to.

    Attributes:
      flax: the side of Flax, run.
      haiku: the side of Haiku.
      search: after its end.
    """

    flax: Flax
    haiku: Side
    search: Search


def side_of(network: Network) -> Side:
    """A network as a side of the search."""
    flat = Flat(network.traced.program, len(network.leaves))
    places = [network.traced.path(i) for i in range(len(flat.outputs))]
    return Side(flat, list(network.leaves), places)


def solve(
    flax: Network,
    haiku: Network,
    inputs: Sequence[Any],
    tick: Callable[[int, int], None],
    *,
    small: bool = False,
) -> Solved:
    """Finds the weights of `haiku` among those of `flax`, maybe where all is small."""
    one, two = side_of(flax), side_of(haiku)
    inputs = moved_inputs(inputs, small=small)
    row, weights = _new_weights(one, flax, small)
    kept = one.run(weights, inputs, wanted(one))
    del weights
    known = Flax(one, kept, row)
    fixed = {two.names.index(trio[0]): LATE for trio in averages(two.names)}
    held = Holdings(two.terms, row, fixed)
    total = len(two.flat.steps)
    search = Search(known, two, held, inputs, lambda done: tick(done, total))
    search.go(lambda search: _finish(search, known, two))
    return Solved(known, two, search)


def _new_weights(
    side: Side, flax: Network, small: bool
) -> tuple[np.ndarray, list[Any]]:
    """Weights much like those of Flax: all their elements in a row, and one by one."""
    whole = any(leaf.dtype.kind in "iu" for leaf in flax.leaves.values())
    row = np.zeros(side.terms.total, np.float64 if whole else np.float32)
    weights: list[Any] = side.cut(row)
    for place, value in enumerate(generic(flax.leaves, small=small)):
        weights[place][...] = value.real
        if value.dtype.kind != "f":
            weights[place] = value
    return row, weights


def _finish(search: Search, flax: Flax, haiku: Side) -> None:
    """Compares the outputs, and the state that both leave."""
    _pair_averages(search, haiku)
    give_kept(search)
    give_returned(search, output_pairs(search, flax.side, haiku))
    for place, other in output_pairs(search, flax.side, haiku):
        value, theirs = haiku.flat.outputs[place], flax.side.flat.outputs[other]
        if not haiku.flat.is_data(value) or not flax.side.flat.is_data(theirs):
            continue
        made, wanted_ = haiku.prints.of[value], flax.side.prints.of[theirs]
        shapes = haiku.flat.shape(value), flax.side.flat.shape(theirs)
        is_state = haiku.outputs[place].startswith("['after']")
        fits = shapes[0] == shapes[1] or is_state
        if fits and are_close(made, wanted_, ordered=True):
            search.close(search.values.taint(value), -1)
            continue

        def give_up(
            value: int = value, theirs: int = theirs, place: int = place
        ) -> None:
            fault = Fault(value, theirs, output=place)
            search.note(fault)
            search.compared.add(place)

        if place not in search.compared:
            raise Stuck(search.values.taint(value), give_up)


def output_pairs(search: Search, flax: Side, haiku: Side) -> list[tuple[int, int]]:
    """Which output of Haiku is which of Flax, by position, the state by its leaves."""
    ours = [i for i, path in enumerate(haiku.outputs) if path.startswith("['output']")]
    theirs = [i for i, path in enumerate(flax.outputs) if path.startswith("['output']")]
    pairs = list(zip(ours, theirs, strict=False))
    for i, path in enumerate(haiku.outputs):
        name = path.removeprefix("['after']['").removesuffix("']")
        if name in haiku.names and i not in ours:
            start = int(haiku.terms.starts[haiku.names.index(name)])
            number = search.held.found[start] if start < haiku.terms.total else UNKNOWN
            if number >= 0:
                other = f"['after']['{flax.names[flax.terms.whose(int(number))]}']"
                if other in flax.outputs:
                    pairs.append((i, flax.outputs.index(other)))
    return pairs


def _pair_averages(search: Search, haiku: Side) -> None:
    """What is known of one of `hidden` and `average` holds for the other."""
    held, terms = search.held, haiku.terms
    for _, hidden, average in averages(haiku.names):
        one, two = (terms.ids(haiku.names.index(n)).ravel() for n in (hidden, average))
        for here, there in ((one, two), (two, one)):
            new = (held.found[here] == UNKNOWN) & (held.found[there] != UNKNOWN)
            held.found[here[new]] = held.found[there[new]]


def no_tick(done: int, total: int) -> None:
    """Shows nothing."""
