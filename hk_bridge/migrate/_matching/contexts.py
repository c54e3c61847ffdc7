"""What stands beside a weight in a sum or a product, as far as data goes.

A bias may be added to one product or to two, a scale come before another: the data that
a weight meets are looked for on several levels, the nearest first."""

from collections.abc import Iterator

from hk_bridge.migrate._matching.flat import CONSTANT
from hk_bridge.migrate._matching.flat import WEIGHT
from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.movement import TURNS
from hk_bridge.migrate._matching.units import Site
from hk_bridge.migrate._matching.units import Unit

_KINDS = {"sum": {"add", "sub", "add_any"}, "product": {"mul", "div"}}
_FAR = 3  # how many levels are looked at


def within(flat: Flat, site: Site) -> Iterator[tuple[int, int]]:
    """Values that are in what a site has as its data, with how far each is from it."""
    yield site.data, 0
    maker = flat.makers[site.data]
    is_convolution = site.step.name == "conv_general_dilated"
    if is_convolution and maker is not None and maker.name == "pad":
        yield maker.ins[0], 1  # padded as a convolution may do itself
    kind = _KINDS.get(site.role, set())
    todo = [(site.data, 1)] if kind else []
    while todo:
        value, far = todo.pop(0)
        step = flat.makers[value]
        if step is None or far > _FAR:
            continue
        if step.name in TURNS:
            yield step.ins[0], far
            todo.append((step.ins[0], far))
        elif (
            site.role == "sum"
            and step.name in ("mul", "div")
            and CONSTANT in {flat.kinds[x] for x in step.ins}
        ):  # an average has the weight of a new value there
            for operand in filter(flat.is_data, step.ins):
                yield operand, far
                todo.append((operand, far))
        elif step.name in kind:
            kinds = [flat.kinds[x] for x in step.ins]
            light = CONSTANT in kinds or WEIGHT in kinds
            for operand in filter(flat.is_data, step.ins):
                yield operand, far if light else far + 1
                todo.append((operand, far + 1))


def beyond(flat: Flat, value: int) -> Iterator[tuple[int, int]]:
    """The sums that a sum is a part of, with how far each is from it.

    Less a weight in it they are what the weight would meet if it were added last."""
    start = flat.shape(value)
    for far in range(1, _FAR):
        readers = flat.readers[value]
        if len(readers) != 1 or readers[0].name not in ("add", "add_any"):
            return
        value = readers[0].outs[0]
        if flat.shape(value) != start:
            return
        yield value, far


def later(flat: Flat, unit: Unit) -> Iterator[tuple[int, int]]:
    """Values of which a unit of a sum is a part, with how far each is from it."""
    if unit.site.role != "sum":
        return
    value = unit.cut[0] if unit.cut else unit.site.out
    if unit.cut:
        if flat.shape(value)[-1:] != unit.form[1:]:
            return
        yield value, 0
    yield from beyond(flat, value)
