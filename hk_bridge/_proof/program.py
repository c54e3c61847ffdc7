"""Whether two traced programs compute the same, and where they first part, in words."""

from collections.abc import Callable
from collections.abc import Collection
import itertools
from typing import Any

import jax
from jax.extend import core as jex
from jax.extend import source_info_util
import numpy as np

from hk_bridge._proof import numbering
from hk_bridge._proof.numbering import Equation
from hk_bridge._proof.numbering import Program
from hk_bridge._proof.numbering import Value

# Above this, a constant is told by its dtype and shape in messages.
_SHOWN = 4
# A parameter is told by as many characters, an equation by as many operands.
_LONGEST = 200
_MOST = 4


def difference(
    ours: jex.ClosedJaxpr,
    theirs: jex.ClosedJaxpr,
    *,
    outputs: Callable[[int], str] = "output {}".format,
    transparent: Collection[str] = (),
) -> str | None:
    """How two programs differ, in words, or None if they compute the same.

    Args:
      ours: the program of the bridged module.
      theirs: the native one, of the same inputs, in the same order.
      outputs: what an output of the native one is called, by its position.
      transparent: primitives that count as the equations inside of them, by name.

    >>> import jax.numpy as jnp
    >>> one = jax.make_jaxpr(lambda x: x + jnp.sin(2.0 * x))(1.0)
    >>> two = jax.make_jaxpr(lambda x: jnp.sin(2.0 * x) + x)(1.0)
    >>> difference(one, one)
    >>> print(difference(one, two).split(", at")[0])
    add: operand 0 is input 0 in Haiku, the result of sin in Flax
    """
    table = numbering.Table(frozenset(transparent))
    one, two = table.read(ours), table.read(theirs)
    if one.key == two.key and one.counts == two.counts:
        return None
    return _parting(one, two, outputs)


def _parting(ours: Program, theirs: Program, outputs: Callable[[int], str]) -> str:
    """What differs first: an input, an equation, an output or how often."""
    if len(ours.inputs) != len(theirs.inputs):
        counts = len(ours.inputs), len(theirs.inputs)
        return f"there are {counts[0]} inputs in Haiku, {counts[1]} in Flax"
    for i, avals in enumerate(zip(ours.inputs, theirs.inputs, strict=True)):
        if avals[0] != avals[1]:
            return f"input {i} is {_either(*map(str, avals))}"
    one, two = (_unknown(*sides) for sides in ((ours, theirs), (theirs, ours)))
    if one is not None and two is not None:
        return _compared(one, two)
    for equation, here, there in ((one, "Haiku", "Flax"), (two, "Flax", "Haiku")):
        if equation is not None:
            return f"{_described(equation)} is in {here} alone, not in {there}"
    if len(ours.outputs) != len(theirs.outputs):
        counts = (len(ours.outputs), len(theirs.outputs))
        return f"there are {counts[0]} outputs in Haiku, {counts[1]} in Flax"
    for i, pair in enumerate(zip(ours.outputs, theirs.outputs, strict=True)):
        if pair[0].number != pair[1].number:
            return f"{outputs(i)} is {_either(*_told_apart(*pair))}"
    return _repeated(ours, theirs)


def _unknown(here: Program, there: Program) -> Equation | None:
    """The first equation needed here that is not there."""
    known = {equation.number for equation in there.needed}
    return next((e for e in here.needed if e.number not in known), None)


def _compared(ours: Equation, theirs: Equation) -> str:
    """What is different between two equations."""
    names = [equation.eqn.primitive.name for equation in (ours, theirs)]
    places = f", at {_either(_place(ours), _place(theirs))}"
    whole = _either(_described(ours), _described(theirs))
    if names[0] != names[1]:
        return whole
    if len(ours.inner) == len(theirs.inner):
        for one, two in zip(ours.inner, theirs.inner, strict=True):
            if one.key != two.key:
                return f"in {names[0]}: {_parting(one, two, 'output {}'.format)}"
    for key in {**ours.params, **theirs.params}:
        if ours.plain.get(key) != theirs.plain.get(key):
            texts = [_short(str(e.params.get(key))) for e in (ours, theirs)]
            said = f"is {_either(*texts)}"
            if texts[0] == texts[1]:
                said = f"differs, though it reads {texts[0]} in both"
            return f"{names[0]}: {key} {said}{places}"
    if len(ours.operands) != len(theirs.operands):
        return whole
    for i, pair in enumerate(zip(ours.operands, theirs.operands, strict=True)):
        if pair[0].number != pair[1].number:
            said = f"operand {i} is {_either(*_told_apart(*pair))}"
            return f"{names[0]}: {said}{places}"
    return whole


def _repeated(ours: Program, theirs: Program) -> str:
    """Which equation one side has more often, its results being the same."""
    for equation in itertools.chain(ours.all(), theirs.all()):
        times = [side.counts[equation.number] for side in (ours, theirs)]
        if times[0] != times[1]:
            said = _either(f"{times[0]} times", str(times[1]))
            return f"{_described(equation)} is done {said}"
    raise AssertionError("Equal numbers of equal results, as often, are no difference.")


def _either(ours: str, theirs: str) -> str:
    return f"{ours} in Haiku, {theirs} in Flax"


# Values.


def _told_apart(one: Value, two: Value) -> tuple[str, str]:
    """Two different values in words that differ."""
    texts = _text(one), _text(two)
    if texts[0] != texts[1]:
        return texts
    for more in (_kind_of, _operands_of, _place_of, _position_of):
        added = more(one), more(two)
        if added[0] != added[1]:
            return f"{texts[0]}{added[0]}", f"{texts[1]}{added[1]}"
    added = _bits_apart(one.constant, two.constant)
    return f"{texts[0]}{added[0]}", f"{texts[1]}{added[1]}"


def _text(value: Value) -> str:
    held = value.constant
    if held is None:
        return value.text
    small = isinstance(held, np.ndarray) and held.size <= _SHOWN
    return f"the constant {held[()] if small else value.aval!s}"


def _kind_of(value: Value) -> str:
    return f", {value.aval}"


def _operands_of(value: Value) -> str:
    if value.equation is None:
        return ""
    return f" of {', '.join(map(_text, value.equation.operands[:_MOST]))}"


def _place_of(value: Value) -> str:
    return "" if value.equation is None else f" at {_place(value.equation)}"


def _position_of(value: Value) -> str:
    if value.equation is None:
        return ""
    return f", equation {value.equation.position} of the program"


def _bits_apart(one: Any, two: Any) -> tuple[str, str]:
    """The first elements of two arrays that differ, in words."""
    if isinstance(one, jax.Array) and isinstance(two, jax.Array):  # of keys
        one, two = (np.asarray(jax.random.key_data(keys)) for keys in (one, two))
    if not isinstance(one, np.ndarray) or one.shape != np.shape(two):
        return ", one object", ", another one"
    for index in np.ndindex(one.shape):
        elements = one[index], two[index]
        if elements[0].tobytes() != elements[1].tobytes():
            texts = [str(element) for element in elements]
            if texts[0] == texts[1]:
                texts = [f"bits {e.tobytes()[::-1].hex()}" for e in elements]
            where = f" with {{}} at {list(index)}" if index else " of {}"
            return where.format(texts[0]), where.format(texts[1])
    return "", ""


# Equations.


def _described(equation: Equation) -> str:
    """An equation with the kinds of its values and where it was written."""
    eqn = equation.eqn
    kinds = [_kinds(variables) for variables in (eqn.invars, eqn.outvars)]
    return f"{eqn.primitive.name}({kinds[0]}) -> {kinds[1]} at {_place(equation)}"


def _kinds(variables: list[Any]) -> str:
    kinds = [str(variable.aval) for variable in variables[:_MOST]]
    more = len(variables) - len(kinds)
    return ", ".join([*kinds, f"{more} more"] if more else kinds)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _place(equation: Equation) -> str:
    found = source_info_util.summarize(equation.eqn.source_info)
    return found or "a line outside of user code"
