"""The compiled program of bridged `apply` is native Flax's, instruction by instruction.

That the equations before compilation are the same is a law, for every case there is.
"""

import collections
import re

import catalogue
import catalogue_linen
import jax
from laws import flax_apply
from laws import flax_init
from laws import haiku_init
from laws import transform
import pytest


def instructions(f, *args):
    """How many instructions of each kind the optimised HLO of `f` has."""
    text = jax.jit(f).lower(*args).compile().as_text()
    return collections.Counter(
        re.findall(r"(?m)^\s+(?:ROOT )?%?\S+ = .*? ([a-z-]+)\(", text)
    )


CASES = [*catalogue.CASES, *catalogue_linen.CASES]


@pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated")  # each call does
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_instructions(case):
    def arrays(*tree):
        return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]

    def ours(params, state, rngs):
        return arrays(*transform(case).apply(params, state, None, case.train, rngs))

    def theirs(variables, rngs):
        output, after = flax_apply(case, variables, case.train, rngs)
        after.pop("params", None)  # which Haiku does not hand back
        return arrays(output, after)

    rngs = case.rngs(1)
    counted = instructions(ours, *haiku_init(case), rngs)
    assert counted.total() > 0
    assert counted == instructions(theirs, flax_init(case), rngs)
