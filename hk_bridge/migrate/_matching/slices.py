"""The parts of a weight along its axes: heads, experts, members of an ensemble.

In one network they are one leaf with an axis for them, in another a leaf for each."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np

from hk_bridge.migrate._matching.labels import inputs_of
from hk_bridge.migrate._matching.labels import labels_of
from hk_bridge.migrate._matching.sites import Sites
from hk_bridge.migrate._matching.units import Ids
from hk_bridge.migrate._matching.units import Site
from hk_bridge.migrate._matching.units import Unit


def slices_of(
    sites: Sites, site: Site, kept: Mapping[int, Any]
) -> Iterator[tuple[Unit, Any]]:
    """Parts of the units of a site that meet a part of its data, and that part."""
    if site.data not in kept:
        return
    data = kept[site.data]
    for unit in site.units:
        if site.role in ("sum", "product"):
            for part in sites.slices(unit):
                labels = labels_of(sites.flat, sites.terms, unit)
                whole = np.broadcast_to(data, labels.shape)
                yield part, whole[np.isin(labels, part.chosen)]
        elif site.step.name == "dot_general" and not unit.mixed:
            yield from _of_batch(sites, unit, data)
            yield from _of_inputs(sites, unit, data)


def _of_batch(sites: Sites, unit: Unit, data: Any) -> Iterator[tuple[Unit, Any]]:
    """Parts of which each meets its own part of the data, and makes its own results."""
    step = unit.site.step
    axes = step.params["dimension_numbers"][1][step.ins.index(unit.site.data)]
    parts = iter(sites.slices(unit))
    for axis in axes:
        size = data.shape[axis]
        for i, part in zip(range(size if size > 1 else 0), parts, strict=False):
            yield part, data.take(i, axis)


def _of_inputs(sites: Sites, unit: Unit, data: Any) -> Iterator[tuple[Unit, Any]]:
    """Parts whose results are summed, each along one of the axes that are."""
    inputs = inputs_of(sites.flat, unit.site)
    step, place = unit.site.step, unit.site.step.ins.index(unit.site.data)
    axes = step.params["dimension_numbers"][0][place]
    if inputs is None or len(axes) < 2:
        return
    for axis in axes:
        for i in range(data.shape[axis] if data.shape[axis] <= 64 else 0):
            rows = np.unique(inputs.take(i, axis))
            if 0 < rows.size < unit.form[0]:
                ids = Ids.of(_rows(unit, rows))
                part = Unit(unit.site, ids, unit.done, unit.plus, rows=-1 - i)
                yield part, data.take(i, axis)


def _rows(unit: Unit, rows: np.ndarray) -> Callable[[], np.ndarray]:
    return lambda: unit.ids[rows]
