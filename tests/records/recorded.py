"""What is recorded of a call is what happened in it: what was read, written and made.

By convention a module here only reads the variables whose names start with `r`, and
writes those that start with `w`. So natively a setter would be asked about every `w`,
and about no `r`, whatever transform is between.
"""

from catalogue import array
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)
NAME = "net"
PARAMS_KEY = {"params": KEY}


def copied(tree):
    """`tree` in containers of its own, with the very same leaves."""
    return jax.tree.map(lambda leaf: leaf, tree)


def assert_very_same(tree, other):
    """Both hold the same objects as leaves, in the same places."""
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    assert all(one is two for one, two in leaves)


def bridged(make, *args, **kwargs):
    """A transform that calls one bridged module."""
    return hk.transform_with_state(
        lambda: FlaxModule(make(), name=NAME)(*args, **kwargs)
    )


def listening(log):
    """A setter that notes what is written."""

    def setter(next_setter, value, context):
        log.append(context.name)
        return next_setter(value)

    return hk.custom_setter(setter)


def fresh(base):
    """A class of its own, of which nothing was lifted or traced yet."""
    return type(base.__name__, (base,), {})


def assert_as_native(make, *args, jit=False, steps=3):
    """Init and calls are Flax's; setters hear of each `w`, and state keeps each `r`."""
    put = []

    def forward(args, rngs):
        with listening(put):
            return FlaxModule(make(), name=NAME)(*args, rngs=rngs)

    def native(variables, args, rngs):
        mutable = sorted(variables.keys() - {"params"})
        y, changed = make().apply(variables, *args, rngs=rngs, mutable=mutable)
        return y, {**variables, **changed}

    f = hk.transform_with_state(forward)
    maybe_jit = jax.jit if jit else lambda function: function
    apply, native = maybe_jit(f.apply), maybe_jit(native)
    rngs = lambda step: {
        "params": jax.random.key(step),
        "dropout": jax.random.key(step + 100),
    }
    variables = make().init(rngs(0), *args)
    params, state = f.init(None, args, rngs(0))
    assert_identical(hk_bridge.to_flax(params, state, name=NAME), variables)
    names = sorted(name for bundle in state.values() for name in bundle)
    for step in range(1, steps + 1):
        del put[:]
        before, own = copied((params, state)), state
        y, state = apply(params, state, None, args, rngs(step))
        assert_very_same((params, own), before)
        if step == 1 or not jit:
            assert sorted(set(put)) == [name for name in names if name[0] == "w"]
            assert len(put) == len(set(put)) or len(names) > len(set(names))
        expected, variables = native(variables, args, rngs(step))
        assert_identical(y, expected)
        assert_identical(hk_bridge.to_flax(params, state, name=NAME), variables)
        for module_name, bundle in own.items():
            for name, leaf in bundle.items():
                assert jit or name[0] == "w" or state[module_name][name] is leaf


# Lifted classes.


class Body(nn.Module):
    """Reads one variable, writes another, and has a parameter."""

    @nn.compact
    def __call__(self, x, *_):
        r = self.variable("stats", "r", jnp.full, [], 0.1234567)
        w = self.variable("stats", "w", jnp.zeros, [])
        x = nn.Dense(4)(x) * r.value
        if not self.is_initializing():
            w.value = w.value + x.sum()
        return x + w.value


class Layer(Body):
    """The same for `nn.scan`."""

    @nn.compact
    def __call__(self, x, *_):
        return super().__call__(x), None


AXES = {
    "variable_axes": {"params": 0, "stats": 0, "batch_stats": 0},
    "split_rngs": {"params": True},
}


def scan(cls):
    return nn.scan(cls, length=2, **AXES)


def vmap(cls):
    return nn.vmap(cls, **AXES)


LIFTS = {
    "plain": lambda cls, layer: fresh(cls),
    "remat": lambda cls, layer: nn.remat(fresh(cls)),
    "jit": lambda cls, layer: nn.jit(fresh(cls)),
    "vmap": lambda cls, layer: vmap(fresh(cls)),
    "scan": lambda cls, layer: scan(fresh(layer)),
    "jit_scan": lambda cls, layer: nn.jit(scan(fresh(layer))),
    "remat_scan": lambda cls, layer: nn.remat(scan(fresh(layer))),
    "scan_remat": lambda cls, layer: scan(nn.remat(fresh(layer))),
    "scan_jit": lambda cls, layer: scan(nn.jit(fresh(layer))),
    "vmap_jit": lambda cls, layer: vmap(nn.jit(fresh(cls))),
    "jit_vmap": lambda cls, layer: nn.jit(vmap(fresh(cls))),
    "jit_jit": lambda cls, layer: nn.jit(nn.jit(fresh(cls))),
    "remat_remat": lambda cls, layer: nn.remat(nn.remat(fresh(cls))),
    "jit_remat": lambda cls, layer: nn.jit(nn.remat(fresh(cls))),
    "remat_jit": lambda cls, layer: nn.remat(nn.jit(fresh(cls))),
    "jit_remat_scan_jit": lambda cls, layer: nn.jit(
        nn.remat(scan(nn.jit(fresh(layer))))
    ),
    "metadata": lambda cls, layer: nn.add_metadata_axis(
        fresh(cls), variable_axes={"params": 0}
    ),
}


def read(m, x):
    return x * m.get_variable("stats", "r") + m.get_variable("stats", "w")


def write(m, x):
    m.put_variable("stats", "w", m.get_variable("stats", "w") + x.sum())
    return x * m.get_variable("stats", "r")


def write_the_same(m, x):
    m.put_variable("stats", "w", m.get_variable("stats", "w"))
    return x


def vjp_of(f):
    def call(m, x):
        y, back = nn.vjp(f, m, x, vjp_variables=False)
        return y + back(jnp.ones_like(y))[1]

    return call


def custom_vjp_of(f):
    def call(m, x):
        forward = lambda m, x: nn.vjp(f, m, x)
        return nn.custom_vjp(f, forward, lambda back, y: back(y))(m, x)

    return call


def jvp_of(f):
    def call(m, x):
        y, dy = nn.jvp(f, m, (x,), (x,), {})
        return y + dy

    return call


def loop_of(f, **options):
    def call(m, x):
        body = lambda m, c: (c[0] + 1, f(m, c[1]))
        below = lambda m, c: c[0] < 3
        return nn.while_loop(below, body, m, (0, x), **options)[1]

    return call


def cond_of(one, two, which):
    return lambda m, x: nn.cond(jnp.asarray(which), one, two, m, x)


def switch_of(index, *branches):
    return lambda m, x: nn.switch(index, branches, m, x)


def mapped_of(f):
    double = lambda tree: jax.tree.map(lambda v: v * 2, tree)
    return nn.map_variables(f, "stats", double)


def grad_of(f):
    def call(m, x):
        y, (_, dx) = nn.value_and_grad(lambda m, x: f(m, x).sum(), m, x)
        return dx + y

    return call


FUNCTIONS = {
    "remat": nn.remat,
    "jit": nn.jit,
    "remat of jit": lambda f: nn.remat(lambda m, x: nn.jit(f)(m, x)),
    "vjp": vjp_of,
    "custom_vjp": custom_vjp_of,
    "jvp": jvp_of,
    "while_loop": lambda f: loop_of(f, carry_variables="stats"),
    "cond": lambda f: cond_of(f, lambda m, x: x, True),
    "other branch": lambda f: cond_of(f, lambda m, x: x, False),
    "switch": lambda f: switch_of(2, lambda m, x: x, lambda m, x: 2 * x, f),
    "other case": lambda f: switch_of(0, lambda m, x: x, lambda m, x: 2 * x, f),
}
