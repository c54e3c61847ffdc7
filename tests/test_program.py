"""Programs: that two are the same, where they part, and what XLA makes of them."""

import collections
import re

import catalogue
import catalogue_linen
import flax.linen as nn
import jax
import jax.numpy as jnp
from laws import NAME
from laws import fresh_pairs
import pytest

import hk_bridge
from hk_bridge import _program
from hk_bridge import testing

X = catalogue.array(2, 4)


def difference(one, two, *args, **options):
    """How two functions differ, the first as ours."""
    args = args or (X,)
    programs = (jax.make_jaxpr(function)(*args) for function in (one, two))
    return _program.difference(*programs, **options)


# What is the same.


def test_order_and_dead_code_do_not_matter():
    def one(x):
        a = jnp.sin(x)
        b = jnp.cos(x)
        jnp.tan(x)
        return a + b

    def two(x):
        b = jnp.cos(x)
        return jnp.sin(x) + b

    assert difference(one, two) is None


def test_the_name_of_a_jitted_function_does_not_matter():
    def other(x):
        return x + 1.0

    assert difference(jax.jit(lambda x: x + 1.0), jax.jit(other)) is None
    assert "add" in difference(jax.jit(lambda x: x + 2.0), jax.jit(other))


def test_remat_can_be_looked_through():
    remat = {"transparent": ("checkpoint", "remat2")}
    one = jax.checkpoint(lambda x: jnp.sin(x) * 2.0)
    assert difference(one, lambda x: jnp.sin(x) * 2.0) is not None
    assert difference(one, lambda x: jnp.sin(x) * 2.0, **remat) is None
    assert difference(one, lambda x: jnp.sin(x) * 3.0, **remat) is not None


def test_constants_are_told_by_their_bits():
    tables = [jnp.arange(4.0)[None] for _ in range(2)]
    one, two = (lambda x, table=table: x + table for table in tables)
    assert difference(one, two) is None
    zeros = (jnp.float32(0.0), jnp.float32(-0.0))
    one, two = (lambda x, zero=zero: x * zero for zero in zeros)
    assert difference(one, two) is not None
    nan = lambda x: x * jnp.float32(jnp.nan)
    assert difference(nan, nan) is None


# What is not. Each alters one thing in a module, natively the same but for that.


class Net(nn.Module):
    epsilon: float = 1e-6
    constant: float = 2.0
    axis: int = -1
    swapped: bool = False
    step: float = 1.0
    dtype: type = jnp.float32
    dropped: bool = False

    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm(self.epsilon)(x) * self.constant
        x = jax.nn.softmax(x, self.axis)
        y = nn.Dense(4)(x)
        x = y - x if self.swapped else x - y

        def body(module, carry, _):
            return carry + self.step, None

        x, _ = nn.scan(body, length=3)(self, x, None)
        x = x.astype(self.dtype)
        key = jax.random.key(0) if self.dropped else self.make_rng("noise")
        return x + jax.random.normal(key, x.shape, self.dtype)


ALTERED = {
    "epsilon": (1e-5, "add: operand 1 is the constant 1e-05 in Haiku", "1e-06 in Flax"),
    "constant": (3.0, "mul: operand 1 is the constant 3.0 in Haiku", "2.0 in Flax"),
    "axis": (0, "reduce_max: axes is (0,) in Haiku, (1,) in Flax"),
    "swapped": (True, "sub: operand 0 is the result of add in Haiku", "of div in Flax"),
    "step": (1.5, "in scan: add: operand 1 is the constant 1.5 in Haiku, the"),
    "dtype": (jnp.float16, "convert_element_type(float32[2,4]) -> float16[2,4]"),
    "dropped": (True, "random_seed(int32[])", "in Haiku, random_fold_in(key<fry>[]"),
}


def altered(**change):
    """The pair of a net natively and another one bridged."""
    case = catalogue.Case("net", Net, (X,), streams=("noise",))
    other = lambda module, name: hk_bridge.FlaxModule(Net(**change), name=name)
    return fresh_pairs(catalogue.dataclasses.replace(case, bridge=other))[0]


def test_the_net_itself_passes():
    assert testing.same_program(altered()) == "init, apply and gradient"


@pytest.mark.parametrize("field", ALTERED)
def test_an_altered_program_is_caught(field):
    value, *words = ALTERED[field]
    with pytest.raises(AssertionError) as caught:
        testing.same_program(altered(**{field: value}))
    for word in words:
        assert word in str(caught.value)


# What XLA gets, and what it makes of that. Numbers do not see the order of equations,
# nor dead ones: here is the text of the program, for a case of each kind.

CASES = {case.name: case for case in [*catalogue.CASES, *catalogue_linen.CASES]}
KINDS = ["batch_norm", "attention", "scan", "jit", "streams", "decode_cache"]


def arrays(*tree):
    return [x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array)]


def lowered(case):
    """Bridged and native `apply`, for the same arguments, and with the same results."""
    pair = fresh_pairs(case)[0]

    def ours(tree, inputs):
        trees = hk_bridge.to_haiku(tree, name=NAME)
        output, state = pair.bridged.haiku_apply(inputs, *trees)
        return arrays(output, hk_bridge.to_flax({}, state, name=NAME))

    def theirs(tree, inputs):
        output, after = pair.native.apply(inputs, tree)
        after.pop("params", None)  # which Haiku does not hand back
        return arrays(output, after)

    for function in (ours, theirs):
        function.__name__ = "apply"  # which is in the text
        run = lambda tree, rngs, function=function: function(
            tree, pair.at_step(0)._replace(rngs=rngs)
        )
        run.__name__ = "apply"
        yield jax.jit(run).lower(pair.spec, case.rngs(0))


@pytest.mark.parametrize("name", KINDS)
def test_xla_gets_the_same_program(name):
    ours, theirs = (program.as_text() for program in lowered(CASES[name]))
    assert "func.func public @main" in ours
    assert ours == theirs


def instructions(program):
    """How many instructions of each kind the optimised HLO has."""
    text = program.compile().as_text()
    return collections.Counter(
        re.findall(r"(?m)^\s+(?:ROOT )?%?\S+ = .*? ([a-z-]+)\(", text)
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in KINDS else pytest.mark.values)
        for name in CASES
        if CASES[name].compiles
    ],
)
def test_xla_makes_the_same_instructions_of_it(name):
    ours, theirs = map(instructions, lowered(CASES[name]))
    assert ours.total() > 0
    assert ours == theirs
