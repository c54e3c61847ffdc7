"""Where two programs part: the first lines that differ, and why."""

import collections
from collections.abc import Iterator
from collections.abc import Set
import dataclasses

from hk_bridge.migrate._matching import causes
from hk_bridge.migrate._matching.choices import Fault
from hk_bridge.migrate._matching.did import Did
from hk_bridge.migrate._matching.did import is_folded
from hk_bridge.migrate._matching.did import is_shift
from hk_bridge.migrate._matching.flat import WEIGHT
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.lines import line_of
from hk_bridge.migrate._matching.movement import MOVES
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.solve import Solved

_MOST = 300  # how many steps back are looked at


@dataclasses.dataclass(frozen=True)
class Place:
    """A line of one of the programs.

    Attributes:
      layer: the names of the modules that it is in.
      line: the file and the line of the user's code.
      operation: the primitive, `dot_general`.
      shape: of its result.
      leaf: the weights that it reads, if it does.
    """

    layer: str
    line: str
    operation: str
    shape: tuple[int, ...]
    leaf: str = ""

    def __str__(self) -> str:
        leaf = f" with {self.leaf}" if self.leaf else ""
        where = f"{self.layer or 'the network itself'}: "
        return f"{where}{self.operation}{leaf} -> {list(self.shape)}, {self.line}"


@dataclasses.dataclass(frozen=True)
class Parting:
    """Where Haiku's network is another than Flax's, first of all.

    Attributes:
      haiku: the line in Haiku; None if there is none.
      flax: the line in Flax; None if there is none.
      cause: why, in a few words: `epsilon: 1e-05 in Haiku, 1e-06 in Flax`.
      seen: where it was noticed: the layer of Haiku that reads it, or an output.
    """

    haiku: Place | None
    flax: Place | None
    cause: str
    seen: str

    def __str__(self) -> str:
        sides = (("Haiku", self.haiku), ("Flax", self.flax))
        lines = [f"  {name}: {place}" for name, place in sides if place is not None]
        return "\n".join([f"They part here: {self.cause}", *lines, f"  {self.seen}"])


def parting(solved: Solved, fault: Fault) -> Parting:
    """The first difference that a fault goes back to."""
    haiku, flax = solved.haiku, solved.flax.side
    if fault.inside:
        steps = [haiku.flat.makers[fault.value]]
        other = None if fault.other is None else flax.flat.makers[fault.other]
        ours = [step for step in steps if step is not None]
        theirs = [] if other is None else [other]
    else:
        ours = list(_unknown(haiku, fault.value, flax))
        theirs = []
        if fault.other is not None:
            theirs = list(_unknown(flax, fault.other, haiku, fault.position))
        if not ours and fault.site is not None:
            return _elsewhere(solved, fault)
    one, two = (
        [did for did in (_did(side, step, known) for step in steps) if did.is_plain]
        for side, steps, known in zip(
            (haiku, flax), (ours, theirs), fault.known, strict=True
        )
    )
    only = _first_layer(_rest(one, two)), _first_layer(_rest(two, one))
    cause, first = causes.likely(only, (one, two), fault)
    places = [
        _place(side, found) for side, found in ((haiku, first[0]), (flax, first[1]))
    ]
    if places[0] is None and fault.site is not None:
        places[0] = _place(haiku, _did(haiku, fault.site.step))
    if places[1] is None and fault.flax_site is not None:
        places[1] = _place(flax, _did(flax, fault.flax_site.step))
    cause = _one_more(solved, places) or cause
    return Parting(places[0], places[1], cause, _seen(haiku, fault))


def _elsewhere(solved: Solved, fault: Fault) -> Parting:
    """A layer reads a value that Flax has, but there another layer reads it."""
    haiku, flax = solved.haiku, solved.flax.side
    assert fault.site is not None, "Outputs are read by no layer."
    made = haiku.prints.of.get(fault.value)  # None of a constant
    known = [] if made is None else flax.prints.find(made)
    readers = [s for value in known if value >= 0 for s in flax.flat.readers[value]]
    some = [_did(flax, step, fault.known[1]) for step in readers]
    real = [did for did in some if did.name not in MOVES] or some
    there = min(real, key=lambda d: (not d.is_new, d.step.position), default=None)
    here = _did(haiku, fault.site.step)
    places = [_place(haiku, here), _place(flax, there)]
    cause = "order, or a missing layer: in Flax another layer reads this value"
    if there is not None and there.is_sum:
        cause = causes.MISSING_SUM
    elif there is not None and there.is_new:
        forms = [
            unit.form
            for sites in ([fault.site], flax.sites.at(there.step))
            for site in sites
            for unit in site.units
        ]
        (k, n), (other, m) = forms[0], forms[-1]
        if k == other and max(n, m) % min(n, m):
            cause = (
                f"shape: of {n} features in Haiku, of {m} in Flax, as of other heads"
            )
    cause = _one_more(solved, places) or cause
    return Parting(places[0], places[1], cause, _seen(haiku, fault))


def _one_more(solved: Solved, places: list[Place | None]) -> str:
    """Says that one side has a layer more, if it has the weights of it more."""
    sides = solved.haiku, solved.flax.side
    sizes = [sum(_sizes(side).values()) for side in sides]
    more = 0 if sizes[0] > sizes[1] else 1
    place, side = places[more], sides[more]
    if place is None or not place.layer:
        return ""
    names = {
        side.names[weight]
        for site in side.sites.all
        if site.step.scope == place.layer
        for weight in side.terms.places(site.weight)
    }
    gap, held = abs(sizes[0] - sizes[1]), _sizes(side)
    who, lacks = ("Haiku", "Flax") if more == 0 else ("Flax", "Haiku")
    word = "an extra" if more == 0 else "a missing"
    if gap and gap == sum(size for name, size in held.items() if name in names):
        return f"{word} layer: {who} has {place.layer} here, {lacks} has not"
    what = causes.LEAVES.get(place.operation)
    if gap and what is not None and gap == held.get(place.leaf):
        return f"{word} {what}: {who} has {place.leaf} here, {lacks} has not"
    return ""


def _sizes(side: Side) -> dict[str, int]:
    """How many elements each of the params has."""
    pairs = zip(side.names, side.flat.weights, strict=True)
    return {n: side.flat.size(w) for n, w in pairs if n.startswith("params/")}


def _seen(haiku: Side, fault: Fault) -> str:
    if fault.site is None:
        return f"Seen at {haiku.outputs[fault.output or 0]} of what is returned."
    step = fault.site.step
    return f"Seen at {_layer(step) or 'the network itself'}, {line_of(step.eqn)}."


def _first_layer(some: list[Did]) -> list[Did]:
    """The steps of the layer of the first of them, which are not told by later ones."""
    return [did for did in some if did.step.scope == some[0].step.scope]


def _unknown(
    side: Side, value: int, other: Side, end: int | None = None
) -> Iterator[Step]:
    """The steps that a value comes from, up to values that the other side has.

    Args:
      end: the position up to which these count.
    """
    found: dict[int, Step] = {}
    todo = [value]
    while todo and len(found) < _MOST:
        number = todo.pop(0)
        step = side.flat.makers[number]
        if step is None or step.position in found:
            continue
        if _is_known(side, number, other, end) and not is_shift(side, step):
            continue
        if side.flat.is_data(number):
            found[step.position] = step
            todo += step.ins
    yield from (found[position] for position in sorted(found))


def _is_known(side: Side, number: int, other: Side, end: int | None) -> bool:
    """Whether the other side has a value, and its outputs depend on it."""
    if number not in side.prints.of:
        return False
    for same in other.prints.find(side.prints.of[number]):
        maker = other.flat.makers[same] if same >= 0 else None
        late = maker is not None and end is not None and maker.position > end
        if same < 0 or (same in other.flat.alive and not late):
            return True
    return False


def _rest(one: list[Did], two: list[Did]) -> list[Did]:
    """What is in `one` and not in `two`, each as often as it is."""
    counts = collections.Counter(did.key for did in two)
    rest = []
    for did in one:
        if counts[did.key]:
            counts[did.key] -= 1
        else:
            rest.append(did)
    return rest


def _did(side: Side, step: Step, known: Set[str] = frozenset()) -> Did:
    flat = side.flat
    numbers = []
    for place, operand in enumerate(step.ins):
        number = side.terms.scalar(operand)
        if number is not None:
            numbers.append((place, float(f"{number:.5g}")))
    leaves = []
    for operand in step.ins:
        if flat.kinds[operand] == WEIGHT:
            leaves += [
                side.names[place] for place in sorted(side.terms.places(operand))
            ]
    data = tuple(flat.shape(x) for x in step.ins if flat.is_data(x))
    inner = tuple(
        constant for operand in step.ins for constant in _inside(side, operand)
    )
    return Did(
        step,
        tuple(numbers),
        tuple(leaves),
        data,
        flat.shape(step.outs[0]),
        inner,
        is_new=not known >= {*leaves},
        is_drawn=any(_is_drawn(side, x) for x in step.ins if not flat.is_data(x)),
        is_folded=is_folded(side, step),
    )


def _is_drawn(side: Side, value: int) -> bool:
    """Whether a value that depends on no input comes of random numbers."""
    todo, seen = [value], {value}
    while todo:
        step = side.flat.makers[todo.pop()]
        if step is not None and step.name in causes.DRAWS:
            return True
        new = [x for x in (step.ins if step is not None else ()) if x not in seen]
        seen.update(new)
        todo += new
    return False


def _inside(side: Side, operand: int) -> Iterator[float]:
    """The constants in an operand made of weights: an epsilon of a variance."""
    for term in side.terms.of(operand) if side.flat.kinds[operand] == WEIGHT else ():
        if term.plus:
            yield float(f"{term.plus:.5g}")


def _place(side: Side, did: Did | None) -> Place | None:
    if did is None:
        return None
    leaf = did.leaves[0] if did.leaves else ""
    more = f" and {len(did.leaves) - 1} more" if len(did.leaves) > 1 else ""
    step = did.step
    return Place(_layer(step), line_of(step.eqn), step.name, did.out, leaf + more)


def _layer(step: Step) -> str:
    return step.scope
