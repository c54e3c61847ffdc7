"""Why two short programs differ, in a few words."""

from collections.abc import Sequence
import functools

from hk_bridge.migrate._matching.choices import Fault
from hk_bridge.migrate._matching.did import CONV
from hk_bridge.migrate._matching.did import Did
from hk_bridge.migrate._matching.movement import MOVES
from hk_bridge.migrate._matching.movement import NEUTRAL

_BENDS = {
    "tanh",
    "erf",
    "erfc",
    "logistic",
    "exp",
    "max",
    "log1p",
    "expm1",
    "sin",
    "cos",
}
_BENDS |= {"clamp", "abs", "square", "softplus", "exp2"}
_COMPARES = {"lt", "le", "gt", "ge", "eq", "ne", "iota", "select_n", "and", "or", "not"}
DRAWS = {
    "random_bits",
    "threefry2x32",
    "random_wrap",
    "random_unwrap",
    "random_fold_in",
}
DRAWS |= {"shift_right_logical", "bitcast_convert_type"}
LEAVES = {"add": "bias", "mul": "scale"}  # what a weight is called, by its step
MISSING_SUM = "a missing sum: Flax adds two values here, as of a residual"
_SMALL = 0.02  # of this size or less a constant that is added is an epsilon


Pair = tuple[Did | None, Did | None]
_SHAPE = "shape: the same steps on other shapes, as of other heads or axes"


def likely(
    only: tuple[list[Did], list[Did]],
    whole: tuple[list[Did], list[Did]],
    fault: Fault,
) -> tuple[str, Pair]:
    """The likely cause, and the lines that show it."""
    starts = [_first([d for d in side if d.name not in MOVES]) for side in whole]
    products = [d for d in starts if d is not None and d.is_product]
    ours, theirs = ([d for d in some if d.name not in NEUTRAL] for some in only)
    ours, theirs = ([d for d in some if not d.is_folded] for some in (ours, theirs))
    real = tuple([d for d in some if d.name not in MOVES] for some in (ours, theirs))
    first: Pair = (_first(real[0] or ours), _first(real[1] or theirs))
    bend = functools.partial(_bend, whole)
    rules = (_noise, _conv, _layer, _sum, bend, _constant, _axis, _mask, _pool, _alone)
    shapes = _shapes([[d for d in side if d.is_product] for side in whole])
    if len(products) == 2 and shapes is None:
        return "order of arguments, or axes: of a product", (starts[0], starts[1])
    for rule in rules if shapes is None else rules[:3]:
        found = rule(real[0] or ours, real[1] or theirs)
        if found is not None:
            text, pair = found
            return text, (pair[0] or first[0], pair[1] or first[1])
    shapes = shapes or (None if ours or theirs else _shapes(whole))
    if shapes is not None:
        return _SHAPE, shapes
    if not real[0] and not real[1] and whole[0] and whole[1]:
        return (
            "order of arguments: the same steps, on operands in another order or place",
            (whole[0][0], whole[1][0]),
        )
    if not whole[0] and not whole[1]:
        at_output = fault.output is not None
        order = "the results have other shapes or another order" if at_output else ""
        return order or "order: a layer reads what another layer reads in Flax", first
    if not whole[0]:
        return "a missing layer or step: Flax has steps here that Haiku lacks", (
            None,
            whole[1][0],
        )
    if not whole[1]:
        return "an extra layer or step: Haiku has steps here that Flax lacks", (
            whole[0][0],
            None,
        )
    pair = (first[0] or whole[0][0], first[1] or whole[1][0])
    if fault.inside and fault.site is not None and fault.site.role == "linear":
        return "order, or axes: the same weights meet the same data otherwise", pair
    return "other steps are done here", pair


Rule = tuple[str, Pair] | None


def _first(some: Sequence[Did]) -> Did | None:
    return some[0] if some else None


def _noise(ours: list[Did], theirs: list[Did]) -> Rule:
    one, two = ([d for d in side if d.is_drawn] for side in (ours, theirs))
    if bool(one) == bool(two):
        return None
    who = "Haiku" if one else "Flax"
    return f"dropout: random numbers are drawn in {who} alone", (
        _first(one),
        _first(two),
    )


def _conv(ours: list[Did], theirs: list[Did]) -> Rule:
    name = "conv_general_dilated"
    one, two = (_first([d for d in side if d.name == name]) for side in (ours, theirs))
    if one is None or two is None:
        return None
    for key in CONV:
        values = [d.step.params.get(key) for d in (one, two)]
        if str(values[0]) != str(values[1]):
            word = {"window_strides": "strides", "rhs_dilation": "dilation"}.get(
                key, key
            )
            return f"{word}: {values[0]} in Haiku, {values[1]} in Flax", (one, two)
    return None


def _constant(ours: list[Did], theirs: list[Did]) -> Rule:
    """One step with another constant in it."""
    for one in ours:
        for two in theirs:
            if one.name != two.name or bool(one.leaves) != bool(two.leaves):
                continue
            numbers = [[n for _, n in d.numbers] or list(d.inner) for d in (one, two)]
            if numbers[0] == numbers[1] or len(numbers[0]) != len(numbers[1]):
                continue
            if one.name in _COMPARES:
                continue
            pairs = zip(*numbers, strict=True)
            a, b = next(pair for pair in pairs if pair[0] != pair[1])
            added = one.name in ("add", "max") or (one.inner and not one.numbers)
            small = added and max(abs(a), abs(b)) <= _SMALL
            word = "epsilon" if small else "a constant"
            if (
                not small
                and {one.name, two.name} == {"mul"}
                and (one.leaves or 0 < a < 1)
            ):
                word = "a constant (a scale, or a momentum)"
            return f"{word}: {a:g} in Haiku, {b:g} in Flax", (one, two)
    return None


def _layer(ours: list[Did], theirs: list[Did]) -> Rule:
    """A step with weights on one side alone."""
    one, two = ([d for d in side if d.is_new and d.leaves] for side in (ours, theirs))
    if len(one) == len(two):
        return None
    who, some, lacks = ("Haiku", one, "Flax") if len(one) > len(two) else (
        "Flax", two, "Haiku",
    )  # fmt: skip
    did = some[0]
    word = LEAVES.get(did.name, "layer")
    text = f"a missing {word}" if who == "Flax" else f"an extra {word}"
    pair: Pair = (did, None) if who == "Haiku" else (None, did)
    return f"{text}: {who} has {did.leaves[0]} here, {lacks} has not", pair


def _sum(ours: list[Did], theirs: list[Did]) -> Rule:
    """A sum of two values on one side alone, or a difference in its place."""
    one, two = (_first(side) for side in (ours, theirs))
    pair = [d for d in (one, two) if d is not None and len(d.data) == 2]
    if {did.name for did in pair} == {"add", "sub"}:
        words = [{"add": "added", "sub": "subtracted"}[did.name] for did in pair]
        return f"a sign: {words[0]} in Haiku, {words[1]} in Flax", (one, two)
    if two is not None and two.is_sum and not any(d.is_sum for d in ours):
        return MISSING_SUM, (one, two)
    return None


def _pool(ours: list[Did], theirs: list[Did]) -> Rule:
    """Values that are put together in another way."""
    one, two = ([d for d in s if d.name.startswith("reduce_")] for s in (ours, theirs))
    names = [" and ".join(sorted({d.name for d in s})) or "none" for s in (one, two)]
    if names[0] == names[1]:
        return None
    text = f"pooling, or a reduction: {names[0]} in Haiku, {names[1]} in Flax"
    return text, (_first(one), _first(two))


def _alone(ours: list[Did], theirs: list[Did]) -> Rule:
    """A step with a number on one side, where the other has none."""
    if bool(ours) == bool(theirs):
        return None
    did = (ours or theirs)[0]
    if not did.numbers:
        return None
    word, who = ("an extra", "Haiku") if ours else ("a missing", "Flax")
    text = f"{word} step: {did.name} with {did.numbers[0][1]:g} in {who} alone"
    return text, (did, None) if ours else (None, did)


def _axis(ours: list[Did], theirs: list[Did]) -> Rule:
    for one in ours:
        for two in theirs:
            axes = [
                d.step.params.get("axes", d.step.params.get("axis")) for d in (one, two)
            ]
            if one.name == two.name and axes[0] != axes[1] and None not in axes:
                return f"axis: {axes[0]} in Haiku, {axes[1]} in Flax", (one, two)
    return None


def _bend(
    whole: tuple[list[Did], list[Did]], ours: list[Did], theirs: list[Did]
) -> Rule:
    """Functions of single elements that are others, with all that they are made of."""
    one, two = ([d for d in side if d.name in _BENDS] for side in (ours, theirs))
    names = [{d.name for d in side} for side in (one, two)]
    if names[0] == names[1]:
        return None
    shared = set[str]()
    for steps, side in ((one, whole[0]), (two, whole[1])):
        shared |= {d.name for d in side if any(_feeds(d, step) for step in steps)}
    both = [{d.name for d in side if d.name in _BENDS & shared} for side in whole]
    texts = [" and ".join(sorted(own | (both[0] & both[1]))) or "none" for own in names]
    text = f"activation: {texts[0]} in Haiku, {texts[1]} in Flax"
    return text, (_first(one), _first(two))


def _feeds(one: Did, two: Did) -> bool:
    """Whether a step reads what another makes."""
    return not {*one.step.outs}.isdisjoint(two.step.ins)


def _mask(ours: list[Did], theirs: list[Did]) -> Rule:
    one, two = ([d for d in side if d.name in _COMPARES] for side in (ours, theirs))
    if not one and not two:
        return None
    names = [" and ".join(sorted({d.name for d in s})) or "none" for s in (one, two)]
    text = f"mask: {names[0]} in Haiku, {names[1]} in Flax"
    return text, (_first(one), _first(two))


def _shapes(whole: Sequence[list[Did]]) -> Pair | None:
    """The first steps of one kind whose results have other shapes."""
    for one in whole[0]:
        same = [two for two in whole[1] if two.key == one.key]
        if same and all(sorted(two.out) != sorted(one.out) for two in same):
            return one, same[0]
    return None
