"""Value numbers: what two programs may differ in, and what is the same all the same.

Each pair is one thing that value numbering has to see, or may not see.
"""

import fractions
import functools

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_batching import custom_vmap
from jax.experimental import layout
from jax.extend.core import Primitive
import jax.numpy as jnp
import numpy as np
import pytest

from hk_bridge._proof import program as _program

X = jnp.arange(8.0).reshape(2, 4) / 7.0
SPEC = jax.ShapeDtypeStruct(X.shape, X.dtype)
MESH = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
POLICIES = jax.checkpoint_policies

odd = Primitive("odd")
odd.def_abstract_eval(lambda x, **params: x)


def difference(one, two, *args):
    programs = (jax.make_jaxpr(function)(*(args or [X])) for function in (one, two))
    return _program.difference(*programs)


def with_parameter(value):
    return lambda x: odd.bind(x, parameter=value)


def with_policy(policy):
    def function(x):
        return jnp.sin(checkpoint_name(jnp.cos(x), "a")) * checkpoint_name(x, "b")

    return jax.checkpoint(function, policy=policy)


def offload(saved, moved):
    return POLICIES.save_and_offload_only_these_names(
        names_which_can_be_saved=saved,
        names_which_can_be_offloaded=moved,
        offload_src="device",
        offload_dst="pinned_host",
    )


def both(name):
    saved = POLICIES.save_only_these_names(name)
    return POLICIES.save_from_both_policies(saved, POLICIES.dots_saveable)


def with_callback(function):
    return lambda x: jax.pure_callback(function, SPEC, x)


def times(factor):
    return lambda x: x * factor


def times_item(factors):
    return lambda x: x * factors["a"]


def times_default(factor):
    return lambda x, factor=factor: x * factor


def then(function):
    return lambda x: function(x)


class Times:
    def __init__(self, factor):
        self.factor = factor

    def run(self, x):
        return x * self.factor

    __call__ = run


class Thing:
    """Has no equality, and no code."""

    def __init__(self, factor):
        self.factor = factor


def recursive():
    def function(x, depth=3):
        return x if depth == 0 else function(x, depth - 1)

    return function


def with_empty_cell():
    later = np.sin
    function = lambda x: later(x)  # noqa: F821
    del later
    return function


def with_key(**options):
    return with_parameter(jax.random.key(0, **options).dtype)


REFS = [jax.new_ref(X), jax.new_ref(X)]


def write(ref):
    def function(x):
        ref[...] = x
        return x

    return function


def read_one_of_two(position):
    def function(x):
        refs = [jax.new_ref(x), jax.new_ref(x)]
        refs[0][...] = 2.0 * x
        return refs[position][...]

    return function


def batched(factor):
    @custom_vmap
    def function(x):
        return x * factor

    function.def_vmap(lambda size, is_batched, x: (function(x), True))
    return function


def constrained(order):
    return lambda x: layout.with_layout_constraint(x, layout.Layout(order))


def put(position):
    return lambda x: jax.device_put(x, jax.devices()[position])


def saved(*names):
    return with_policy(POLICIES.save_only_these_names(*names))


# Pairs that differ, as a function and two arguments of it.
DIFFERENT = {
    "policy of names": (saved, "a", "b"),
    "policy that closes over policies": (lambda n: with_policy(both(n)), "a", "b"),
    "policy that closes over sets": (
        lambda names: with_policy(offload(*names)),
        (["a"], ["b"]),
        (["b"], ["a"]),
    ),
    "callback over an array": (lambda f: with_callback(times(np.ones(1) * f)), 2, 3),
    "callback over a number": (lambda f: with_callback(times(np.float32(f))), 2, 3),
    "callback over a dict": (lambda f: with_callback(times_item({"a": f})), 2, 3),
    "callback over a function": (lambda f: with_callback(then(f)), np.sin, np.cos),
    "callback over own function": (lambda f: with_callback(then(times(f))), 2, 3),
    "callback over an object": (lambda f: with_callback(then(Times(f))), 2, 3),
    "callback over jit": (lambda f: with_callback(then(jax.jit(times(f)))), 2, 3),
    "callback that is an object": (lambda f: with_callback(Times(f)), 2, 3),
    "callback that loops": (lambda f: with_callback(np.vectorize(f)), np.sin, np.cos),
    "callback with a default": (lambda f: with_callback(times_default(f)), 2, 3),
    "callback that is a method": (lambda f: with_callback(Times(f).run), 2, 3),
    "device": (put, 0, 1),
    "layout": (constrained, (0, 1), (1, 0)),
    "Ref closed over": (write, *REFS),
    "Ref of the same value": (read_one_of_two, 0, 1),
    "sign of a complex zero": (with_parameter, complex(0.0, 0.0), complex(0.0, -0.0)),
    "fraction": (with_parameter, fractions.Fraction(1, 2), fractions.Fraction(1, 3)),
    "range": (with_parameter, range(2), range(3)),
    "dtype of keys": (lambda impl: with_key(impl=impl), "threefry2x32", "rbg"),
    "spec": (with_parameter, SPEC, jax.ShapeDtypeStruct((3,), X.dtype)),
    "jitted function": (lambda f: with_parameter(jax.jit(f)), jnp.sin, jnp.cos),
    "custom_vmap": (batched, 2.0, 3.0),
    "unused input of a jitted function": (
        lambda value: lambda x: jax.jit(lambda x, unused: x + 1.0)(x, value),
        1.0,
        1,
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_is_seen(name):
    make, one, two = DIFFERENT[name]
    assert difference(make(one), make(two)) is not None
    assert difference(make(two), make(one)) is not None
    assert difference(make(one), make(one)) is None


def over(*values):
    return lambda x: (values, x)[1]


def in_itself():
    row = []
    row.append(row)
    return row


def deleted():
    array = jnp.ones(3) + 1.0
    array.delete()
    return array


HARD = {
    "recursive": recursive,
    "empty cell": with_empty_cell,
    "list in itself": lambda: over(in_itself()),
    "deleted array": lambda: over(deleted()),
    "array of objects": lambda: over(np.array(["a" * 9, None], object)),
    "iterator": lambda: over(iter([np])),
}


@pytest.mark.parametrize("name", HARD)
def test_functions_that_are_hard_to_describe(name):
    one, two = (with_callback(HARD[name]()) for _ in range(2))
    assert difference(one, two) is None


def psums(order, *dead):
    def function(x):
        for f in dead:
            jax.lax.psum(f(x), "d")
        sums = {f: jax.lax.psum(f(x), "d") for f in order}
        return sums[jnp.sin] + 2.0 * sums[jnp.cos]

    specs = {"in_specs": jax.P("d"), "out_specs": jax.P()}
    return jax.shard_map(function, mesh=MESH, **specs)


# Pairs that are the same, as two functions and their inputs.
SAME = {
    "policies": (saved("a", "b"), saved("b", "a")),
    "policies over policies": (with_policy(both("a")), with_policy(both("a"))),
    "callbacks": (with_callback(times(np.ones(1))), with_callback(times(np.ones(1)))),
    "partials": (
        with_callback(functools.partial(np.multiply, np.float32(2.0))),
        with_callback(functools.partial(np.multiply, np.float32(2.0))),
    ),
    "methods": (with_callback(Times(2.0).run), with_callback(Times(2.0).run)),
    "recursive functions": (with_callback(recursive()), with_callback(recursive())),
    "objects": (with_parameter(Thing(1)), with_parameter(Thing(2))),
    "nan": (with_parameter(complex("nan")), with_parameter(complex("nan"))),
    "bool": (lambda x: x | True, lambda x: x | np.bool_(True), jnp.array([True])),
    "int": (lambda x: x + 2, lambda x: x + np.int32(2), jnp.array([1])),
    "bfloat16": (
        lambda x: x * 0.1,
        lambda x: x * jnp.bfloat16(0.1),
        jnp.ones([2], jnp.bfloat16),
    ),
    "collectives": (psums([jnp.sin, jnp.cos]), psums([jnp.cos, jnp.sin])),
    "dead collective": (
        psums([jnp.sin, jnp.cos]),
        psums([jnp.sin, jnp.cos], jnp.tan),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_is_the_same(name):
    one, two, *args = SAME[name]
    assert difference(one, two, *args) is None
    assert difference(one, lambda *args: two(*args)[::-1], *args) is not None


def test_an_open_program_in_a_parameter():
    """Its constants come from whoever runs it."""
    table = jnp.ones(4)
    functions = (lambda x: x + table, lambda x: x - table)
    one, two = (jax.make_jaxpr(function)(table).jaxpr for function in functions)
    assert one.constvars
    assert difference(with_parameter(one), with_parameter(one)) is None
    assert difference(with_parameter(one), with_parameter(two)) is not None


def test_programs_in_programs_are_counted_once():
    """Their number doubles with each level, and the time must not."""

    def nested(function):
        for _ in range(24):
            function = jax.jit(lambda x, inner=function: inner(inner(x)))
        return function

    assert difference(nested(jax.lax.sin), nested(jax.lax.sin), 1.0) is None
    assert difference(nested(jax.lax.sin), nested(jax.lax.cos), 1.0) is not None
