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
import numpy as np
import pytest

import hk_bridge
from hk_bridge import testing
from hk_bridge._proof import program as _program

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


def untouched(v):
    """What JAX does not see through by itself."""
    return jax.checkpoint(lambda v: (jnp.sin(v), v))(v)[1]


def other(v):
    return jax.checkpoint(lambda v: (v, jnp.sin(v)))(v)[1]


CHOICES = {
    "choice": lambda f, x, v: jax.lax.cond(
        x > 0.0, lambda x, v: (x * 2.0, f(v)), lambda x, v: (x, v), x, v
    ),
    "choice of three": lambda f, x, v: jax.lax.switch(
        jnp.int32(x), [lambda x, v: (x, v), lambda x, v: (x, f(v))] * 2, x, v
    ),
    "loop": lambda f, x, v: jax.lax.while_loop(
        lambda c: c[0] < 9.0, lambda c: (c[0] * 2.0 + x, f(c[1])), (x, v)
    ),
}


@pytest.mark.parametrize("run", CHOICES.values(), ids=CHOICES)
def test_what_choices_and_loops_give_back_is_what_they_were_given(run):
    inputs = jnp.float32(0.5), jnp.float32(0.25)
    passed = lambda x, v: (run(untouched, x, v)[0], v)
    assert difference(lambda *xs: run(untouched, *xs), passed, *inputs) is None
    assert difference(lambda *xs: run(other, *xs), passed, *inputs) is not None


def test_branches_that_give_back_different_operands_are_no_pass():
    def swap(x, v, w):
        return jax.lax.cond(
            x > 0.0, lambda v, w: (v + w, untouched(v)), lambda v, w: (v, w), v, w
        )

    inputs = map(jnp.float32, (0.5, 0.25, 0.75))
    passed = lambda x, v, w: (swap(x, v, w)[0], v)
    assert difference(swap, passed, *inputs) is not None


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


# The words: two sides never read the same.


def at_32(value):
    return jnp.zeros(64).at[32].set(value)


def with_partitionable(value):
    def function(x):
        with jax.threefry_partitionable(value):
            return jax.random.bits(jax.random.key(0), x.shape)

    return function


def with_inputs(*inputs):
    return lambda x: jax.jit(lambda x, *unused: x + 1.0)(x, *inputs)


TABLES = [at_32(1.0), at_32(2.0)]
KEYS = [jax.random.key(0), jax.random.key(1)]
NANS = [np.array(bits, np.uint32).view(np.float32) for bits in (0x7FC00000, 0x7FC00001)]
WORDS = {
    "operands": (
        lambda x: jnp.sin(x) - jnp.sin(2.0 * x),
        lambda x: jnp.sin(2.0 * x) - jnp.sin(x),
        "sub: operand 0 is the result of sin of input 0 in Haiku, the result of sin of "
        "the result of mul in Flax, at ",
    ),
    "outputs": (
        lambda x: (jnp.sin(x), jnp.sin(2.0 * x)),
        lambda x: (jnp.sin(2.0 * x), jnp.sin(x)),
        "output 0 is the result of sin of input 0 in Haiku, the result of sin of the ",
    ),
    "kinds": (
        lambda x: jnp.int32(1),
        lambda x: jnp.uint32(1),
        "output 0 is the constant 1, int32[] in Haiku, the constant 1, uint32[] in ",
    ),
    "large constants": (
        lambda x: TABLES[0],
        lambda x: TABLES[1],
        "output 0 is the constant float32[64] with 1.0 at [32] in Haiku, the constant "
        "float32[64] with 2.0 at [32] in Flax",
    ),
    "payloads": (
        lambda x: NANS[0],
        lambda x: NANS[1],
        "output 0 is the constant nan of bits 7fc00000 in Haiku, the constant nan of "
        "bits 7fc00001 in Flax",
    ),
    "keys": (
        lambda x: KEYS[0],
        lambda x: KEYS[1],
        "output 0 is the constant key<fry>[] with 0 at [1] in Haiku, the constant "
        "key<fry>[] with 1 at [1] in Flax",
    ),
    "context": (
        with_partitionable(True),
        with_partitionable(False),
        "random_seed: the context's threefry_partitionable is True in Haiku, False in",
    ),
    "inner inputs": (
        with_inputs(1.0),
        with_inputs(1),
        "in jit: input 1 is ~float32[] in Haiku, ~int32[] in Flax",
    ),
    "number of inner inputs": (
        with_inputs(1.0),
        with_inputs(),
        "in jit: there are 2 inputs in Haiku, 1 in Flax",
    ),
    "twice in a branch": (
        lambda x: jax.lax.cond(True, lambda x: jnp.sin(x) + jnp.sin(x), jnp.cos, x),
        lambda x: jax.lax.cond(True, lambda x: (y := jnp.sin(x)) + y, jnp.cos, x),
        "sin(float32[2,4]) -> float32[2,4] at ",
        " is done 2 times in Haiku, 1 in Flax",
    ),
    "many operands": (
        lambda x: jnp.concatenate([x] * 9),
        lambda x: jnp.stack([x] * 9),
        "concatenate(float32[2,4], float32[2,4], float32[2,4], float32[2,4], 5 more)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_words(name):
    one, two, start, *end = WORDS[name]
    found = difference(one, two).replace("in pjit:", "in jit:")  # up to JAX 0.8
    assert found.startswith(start)
    assert found.endswith(tuple(end) or "")


def test_words_of_inputs():
    many = [X] * 99
    programs = [
        jax.make_jaxpr(lambda xs: xs[0])(xs)
        for xs in ([*many, X], [*many, X.astype(jnp.float16)], many)
    ]
    found = [_program.difference(programs[0], other) for other in programs[1:]]
    assert found == [
        "input 99 is float32[2,4] in Haiku, float16[2,4] in Flax",
        "there are 100 inputs in Haiku, 99 in Flax",
    ]


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
        trees = hk_bridge.to_haiku(tree, name=NAME, collections=tree)
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
        pytest.param(name, marks=[] if name in KINDS else pytest.mark.weekly)
        for name in CASES
        if CASES[name].compiles
    ],
)
def test_xla_makes_the_same_instructions_of_it(name):
    ours, theirs = map(instructions, lowered(CASES[name]))
    assert ours.total() > 0
    assert ours == theirs


def test_a_constant_that_is_a_tracer_is_one_of_its_type():
    def around(x):
        one = jax.make_jaxpr(lambda y: y + x)(1.0)
        two = jax.make_jaxpr(lambda y: y * x)(1.0)
        assert any(isinstance(const, jax.core.Tracer) for const in one.consts)
        assert _program.difference(one, one) is None
        assert _program.difference(one, two) is not None

    jax.make_jaxpr(around)(1.0)
