"""The program of bridged `apply` is native Flax's, before and after it is compiled.

That the equations are the same is a law, too. Here it is what XLA gets, for every case
there is, and what it makes of that.
"""

import collections
import re

import catalogue
import catalogue_linen
import jax
from laws import NAME
from laws import fresh_pairs
import pytest

import hk_bridge


def arrays(*tree):
    return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]


def programs(case):
    """Bridged and native `apply`, for the same arguments, and with the same results."""

    pair = fresh_pairs(case)[0]

    def ours(tree, rngs):
        output, state = pair.haiku_apply(*hk_bridge.to_haiku(tree, name=NAME), rngs)
        return arrays(output, pair.to_flax({}, state))

    def theirs(tree, rngs):
        output, after = pair.flax_apply(tree, rngs)
        after.pop("params", None)  # which Haiku does not hand back
        return arrays(output, after)

    start = jax.eval_shape(lambda: fresh_pairs(case)[0].flax_start)
    for function in (ours, theirs):
        function.__name__ = "apply"  # which is in the text
        yield jax.jit(function).lower(start, case.rngs(1))


@pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated")  # each call does
@pytest.mark.parametrize("case", [*catalogue.CASES, *catalogue_linen.CASES], ids=str)
def test_xla_gets_the_same_program(case):
    ours, theirs = (program.as_text() for program in programs(case))
    assert "func.func public @main" in ours
    assert ours == theirs


def instructions(program):
    """How many instructions of each kind the optimised HLO has."""
    text = program.compile().as_text()
    return collections.Counter(
        re.findall(r"(?m)^\s+(?:ROOT )?%?\S+ = .*? ([a-z-]+)\(", text)
    )


@pytest.mark.parametrize("case", catalogue.CASES, ids=str)
def test_xla_makes_the_same_instructions_of_it(case):
    ours, theirs = map(instructions, programs(case))
    assert ours.total() > 0
    assert ours == theirs
