"""Gradients of a program, step by step, in float64.

The rule of each step is JAX's own, traced once for all steps that are alike; only the
chain of them is made here. The gradient of a deep network as one program takes JAX far
longer to trace than its steps take to run."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import jax
from jax.extend import core as jex
import jax.numpy as jnp

from hk_bridge._proof.plain import plain
from hk_bridge.migrate._matching.arithmetic import run_all
from hk_bridge.migrate._matching.flat import Call
from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.flat import opened

Rules = dict[Any, Flat]


def slopes(
    flat: Flat,
    values: Mapping[int, Any],
    ends: Mapping[int, Any],
    weights: list[int],
    rules: Rules,
    take: Callable[[int, Any], None],
) -> None:
    """Gradients by some weights of a weighted sum of outputs.

    Args:
      values: all values of the program, by their numbers.
      ends: the weights of the outputs, by the numbers of these.
      weights: the numbers of the weights that it is differentiated by.
      rules: of steps, to be used again for other programs.
      take: gets the number of each weight that the outputs depend on, with its
        gradient, as soon as that is known: all of them would take twice the weights.
    """
    moves = list(_moves(flat))
    own, active = set(weights), set(weights)
    for move in moves:
        if not active.isdisjoint(move.ins):
            active.update(n for n in move.outs if _is_float(flat.avals[n]))
    found = {number: end for number, end in ends.items() if number in active}
    first = {n: i for i, move in reversed([*enumerate(moves)]) for n in move.ins}
    for position, move in reversed([*enumerate(moves)]):
        given = [i for i, number in enumerate(move.outs) if number in found]
        asked = [i for i, number in enumerate(move.ins) if number in active]
        if not given or not asked:
            continue
        pulled = [found.pop(move.outs[i]) for i in given]
        rule = _rule(flat, move, asked, given, rules)
        operands = [*(values[number] for number in move.ins), *pulled]
        made = run_all(rule, dict(zip(rule.inputs, operands, strict=True)))
        for place, slope in zip(asked, made, strict=True):
            number = move.ins[place]
            found[number] = found[number] + slope if number in found else slope
        for number in {n for n in move.ins if first[n] == position}.intersection(found):
            if number in own:
                take(number, found.pop(number))
    for number in own.intersection(found):
        take(number, found.pop(number))  # an output itself


def _moves(flat: Flat) -> Iterator[Step | Call]:
    """Calls with rules of their own, and the steps that are in none of them."""
    position = 0
    for call in flat.calls:
        yield from flat.steps[position : call.start]
        yield call
        position = call.end
    yield from flat.steps[position:]


def _is_float(aval: Any) -> bool:
    return bool(jnp.issubdtype(aval.dtype, jnp.inexact))


def _rule(
    flat: Flat, move: Step | Call, asked: list[int], given: list[int], rules: Rules
) -> Flat:
    """The program that makes slopes by operands of slopes by results."""
    ins, outs = ([flat.avals[n] for n in row] for row in (move.ins, move.outs))
    forms = tuple((aval.shape, aval.dtype) for aval in ins)
    if isinstance(move, Step):
        own: Any = (move.name, plain(move.params, id))
    else:
        own = id(move.eqn)
    key = (own, forms, tuple(asked), tuple(given))
    if key in rules:
        return rules[key]

    def pull(operands: Any, slopes: Any) -> Any:
        def some(*changed: Any) -> list[Any]:
            full = list(operands)
            for place, value in zip(asked, changed, strict=True):
                full[place] = value
            return _applied(move, full, given)

        return jax.vjp(some, *(operands[place] for place in asked))[1](slopes)

    specs = [
        [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in row] for row in (ins, outs)
    ]
    program = jax.make_jaxpr(pull)(specs[0], [specs[1][place] for place in given])
    rules[key] = Flat(program, 0)
    return rules[key]


def _applied(move: Step | Call, operands: list[Any], given: list[int]) -> list[Any]:
    """Some of the results of a step or a call."""
    if isinstance(move, Call):
        atoms = zip(move.eqn.invars, operands, strict=True)
        held = {atom: x for atom, x in atoms if not isinstance(atom, jex.Literal)}
        outs = [move.eqn.outvars[place] for place in given]
        some = {"invars": [*held], "outvars": outs, "constvars": [], "eqns": [move.eqn]}
        program = jex.ClosedJaxpr(opened(move.program).replace(**some), ())
        return list(jex.jaxpr_as_fun(program)(*held.values()))
    if move.run is not None:
        made = [move.run(*operands)]
    else:
        made = move.eqn.primitive.bind(*operands, **move.params)
        made = made if move.eqn.primitive.multiple_results else [made]
    return [made[place] for place in given]
