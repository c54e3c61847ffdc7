"""Weights that meet no data: those that are returned as they are, and state that is
counted on, kept, or overwritten."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from hk_bridge.migrate._matching.flat import WEIGHT
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.holdings import UNKNOWN
from hk_bridge.migrate._matching.holdings import Option
from hk_bridge.migrate._matching.prints import are_close
from hk_bridge.migrate._matching.prints import print_of
from hk_bridge.migrate._matching.search import Search
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.trees import PARAMS
from hk_bridge.migrate._matching.units import Ids
from hk_bridge.migrate._matching.units import Site
from hk_bridge.migrate._matching.units import Unit

AFTER, OUTPUT = "['after']", "['output']"


def give_returned(search: Search, pairs: list[tuple[int, int]]) -> None:
    """Finds weights that outputs are made of alone.

    Args:
      pairs: places of outputs of Haiku and of Flax.
    """
    haiku, flax = search.haiku, search.flax.side
    for place, other in pairs:
        value, theirs = haiku.flat.outputs[place], flax.flat.outputs[other]
        options = zip(_units(haiku, value), _units(flax, theirs), strict=False)
        for ours, there in options:
            same = ours.done == there.done and ours.form == there.form
            if same and ours.plus == there.plus and search.held.is_open(ours):
                search.held.assign(((ours, there),))


def _units(side: Side, value: int) -> list[Unit]:
    """The weights of a value that depends on no input."""
    if side.flat.kinds[value] != WEIGHT:
        return []
    site = Site(Step(-1, "output", [], [value], None, {}), "output", value, value)
    for term in side.terms.of(value):
        ids = lambda term=term: np.ascontiguousarray(term.ids).reshape(1, -1)
        site.units.append(Unit(site, Ids.of(ids), term.done, term.plus))
    return site.units


def give_kept(search: Search) -> None:
    """Finds state that meets no data, by what it is after the call."""
    haiku, held = search.haiku, search.held
    for place, name in enumerate(haiku.names):
        start, end = haiku.terms.starts[place : place + 2]
        known = (held.found[start:end] != UNKNOWN) | held.lost[start:end]
        if name.startswith(f"{PARAMS}/") or known.any():
            continue
        options = _like(search, place)
        right = [option for option in options if _is_same_after(search, place, option)]
        if right:
            held.assign(right[0])
            search.tied += [(right[0], rival) for rival in right[1:]]


def _like(search: Search, place: int) -> list[Option]:
    """Free state of Flax of one form, that of the same name or place first."""
    haiku, flax, held = search.haiku, search.flax.side, search.held
    ours = haiku.flat.weights[place]
    unit = _whole(haiku, place)
    found = []
    for other, name in enumerate(flax.names):
        theirs = flax.flat.weights[other]
        same = haiku.flat.shape(ours) == flax.flat.shape(theirs)
        kinds = {_kind(haiku.flat.avals[ours]), _kind(flax.flat.avals[theirs])}
        two = _whole(flax, other)
        free = bool(held.free[two.ids].all())
        if same and free and len(kinds) == 1 and not name.startswith(f"{PARAMS}/"):
            ends = (x.rpartition("/")[2] for x in (haiku.names[place], name))
            found.append((len(set(ends)), other, ((unit, two),)))
    return [option for *_, option in sorted(found, key=lambda way: way[:2])]


def _kind(aval: Any) -> str:
    floats = jnp.issubdtype(aval.dtype, jnp.floating)
    return "f" if floats else getattr(aval.dtype, "kind", str(aval.dtype))


def _whole(side: Side, place: int) -> Unit:
    site = Site(Step(-1, "state", [], [], None, {}), "state", -1, -1)
    ids = lambda: side.terms.ids(place).reshape(1, -1)
    return Unit(site, Ids.of(ids), (), 0.0)


def _is_same_after(search: Search, place: int, option: Option) -> bool:
    """Whether state is the same after the call, if it is what an option says."""
    haiku, flax = search.haiku, search.flax.side
    ((_, other),) = option
    name = flax.names[flax.terms.whose(int(other.first))]
    values = [
        side.flat.outputs[side.outputs.index(path)] if path in side.outputs else None
        for side, path in (
            (haiku, f"{AFTER}['{haiku.names[place]}']"),
            (flax, f"{AFTER}['{name}']"),
        )
    ]
    if values[0] is None or values[1] is None:
        return False
    length, before = len(search.held.options), search.values.copy()
    search.held.assign(option)
    made: Any = search.values.value(values[0])
    search.held.undo(length)
    search.values.restore(*before)
    return are_close(print_of(made), flax.prints.of[values[1]], ordered=True)
