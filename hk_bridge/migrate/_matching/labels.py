"""Which output of a weight each element of a result is, and what is cut out of it."""

from collections.abc import Iterator

import numpy as np

from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.forms import batched
from hk_bridge.migrate._matching.forms import free
from hk_bridge.migrate._matching.forms import sizes
from hk_bridge.migrate._matching.movement import CUTS
from hk_bridge.migrate._matching.movement import ELEMENTWISE
from hk_bridge.migrate._matching.movement import NEUTRAL
from hk_bridge.migrate._matching.movement import TURNS
from hk_bridge.migrate._matching.movement import moved
from hk_bridge.migrate._matching.terms import Terms
from hk_bridge.migrate._matching.units import Site
from hk_bridge.migrate._matching.units import Unit

_NEAR = 4  # how many steps after a result it is split
_DEEP = 12  # how many steps on the parts of a result are followed


def labels_of(flat: Flat, terms: Terms, unit: Unit) -> np.ndarray:
    """Which output of a unit each element of the result of its site is."""
    site = unit.site
    shape = flat.shape(site.out)
    n = unit.form[1]
    if site.step.name == "dot_general":
        place = site.step.ins.index(site.weight)
        held, shared = flat.shape(site.weight), batched(site.step)
        own = [held[axis] for axis in free(site.step, place, held)]
        after = len(shape) - len(own) if place == 1 else shared
        form = [*shape[:shared], *[1] * (len(shape) - shared)]
        form[after : after + len(own)] = own
        return np.broadcast_to(np.arange(n).reshape(form), shape)
    if site.step.name == "conv_general_dilated":
        channel = site.step.params["dimension_numbers"].out_spec[1]
        channels = [n if axis == channel else 1 for axis in range(len(shape))]
        return np.broadcast_to(np.arange(n).reshape(channels), shape)
    ids = terms.of(site.weight)[site.units.index(unit)].ids
    row = unit.ids.ravel()
    order = np.argsort(row)
    found = order[np.searchsorted(row, ids.ravel(), sorter=order)]
    return np.broadcast_to(found.reshape(ids.shape), shape)


def cuts(
    flat: Flat, terms: Terms, unit: Unit
) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    """The outputs of a unit that are cut out together, and what they become."""
    if unit.mixed or unit.site.role not in ("linear", "sum", "product"):
        return []
    n = unit.form[1]
    member = np.zeros(n, np.int64)
    found: dict[int, list[int]] = {}
    todo = [(unit.site.out, labels_of(flat, terms, unit), 0)]
    seen = set()
    while todo:
        value, labels, deep = todo.pop(0)
        for step in flat.readers[value] if deep < _DEEP else ():
            if step.position in seen:
                continue
            seen.add(step.position)
            for out, inner in _followed(flat, terms, step, value, labels):
                if inner.size < labels.size:
                    mark = len(found) + 1
                    found[mark] = [out]
                    member[np.unique(inner)] += 1 << min(mark, 62)
                todo.append((out, inner, deep + 1))
    groups = [np.flatnonzero(member == mark) for mark in dict.fromkeys(member)]
    if len(groups) < 2:
        return []
    return [
        (group, tuple(v[0] for m, v in found.items() if member[group[0]] >> m & 1))
        for group in groups
    ]


def _followed(
    flat: Flat, terms: Terms, step: Step, value: int, labels: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """The results of a step whose elements still have the labels of its operand."""
    shape = flat.shape(step.outs[0])
    if step.name in CUTS | TURNS and step.ins[0] == value:
        known = [terms.known(x) for x in step.ins[1:]]
        if not any(x is None for x in known):
            yield from zip(step.outs, moved(step, [labels], known), strict=True)
    elif step.name in ELEMENTWISE and shape == labels.shape:
        yield step.outs[0], labels


def inputs_of(flat: Flat, site: Site) -> np.ndarray | None:
    """Which input of a weight each element of the data is, if it is a product."""
    if site.step.name != "dot_general":
        return None
    place, shape = site.step.ins.index(site.data), flat.shape(site.data)
    axes = sorted(site.step.params["dimension_numbers"][0][place])
    form = [size if axis in axes else 1 for axis, size in enumerate(shape)]
    n = int(np.prod(form, dtype=int))
    return np.broadcast_to(np.arange(n).reshape(form), shape)


def split_of(flat: Flat, unit: Unit) -> list[int]:
    """The sizes of the axes into which the last axis of a result is split later on."""
    n, todo = unit.form[1], [(unit.site.out, _NEAR)]
    while todo:
        value, deep = todo.pop(0)
        for step in flat.readers[value] if deep else ():
            old, new = flat.shape(value), flat.shape(step.outs[0])
            lead = len(old) - 1
            if step.name == "reshape" and old[-1:] == (n,) and new[:lead] == old[:-1]:
                return [*new[lead:]]
            if step.name in ELEMENTWISE | NEUTRAL and new == old:
                todo.append((step.outs[0], deep - 1))
    return []


def axes_of(flat: Flat, terms: Terms, unit: Unit) -> list[int]:
    """The sizes of the axes that the outputs of a unit have in the program."""
    site = unit.site
    if unit.mixed or site.role not in ("linear", "sum", "product"):
        return []
    found = _own_axes(flat, terms, unit)
    return found if sum(size > 1 for size in found) > 1 else split_of(flat, unit)


def _own_axes(flat: Flat, terms: Terms, unit: Unit) -> list[int]:
    site = unit.site
    place = site.step.ins.index(site.weight)
    if site.role == "linear":
        ids = np.broadcast_to(0, flat.shape(site.weight))
        return sizes(site.step, site.role, place, ids)
    ids = terms.of(site.weight)[site.units.index(unit)].ids
    return sizes(site.step, site.role, place, ids)
