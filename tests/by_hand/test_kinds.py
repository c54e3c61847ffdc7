"""Leaves that are no arrays: whatever kind of value, it is what Flax has."""

import collections
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import chex
import flax.linen as nn
import haiku as hk
from hand import KEY
from hand import LIFTS
from hand import X
from hand import assert_equal
from hand import keep
import jax
import jax.numpy as jnp
import pytest

from hk_bridge import FlaxModule
from hk_bridge import to_flax
from hk_bridge import to_haiku


@chex.dataclass
class Moments:
    mean: Any
    var: Any


@chex.dataclass(frozen=True, mappable_dataclass=False)
class NoMapping:
    mean: Any
    var: Any


class Pair(NamedTuple):
    mean: Any
    var: Any


@jax.tree_util.register_pytree_node_class
class Node:
    def __init__(self, mean, var):
        self.mean, self.var = mean, var

    def tree_flatten(self):
        return (self.mean, self.var), "static"

    @classmethod
    def tree_unflatten(cls, static, children):
        assert static == "static"
        return cls(*children)


def as_ordered(mean, var):
    return collections.OrderedDict(var=var, mean=mean)


def as_default(mean, var):
    return collections.defaultdict(list, mean=mean, var=var)


def as_odd_keys(mean, var):
    return {(0, 1): mean, (1, 0): var}


KINDS = {
    "chex": lambda mean, var: Moments(mean=mean, var=var),
    "chex without mapping": lambda mean, var: NoMapping(mean=mean, var=var),
    "named tuple": Pair,
    "node": Node,
    "OrderedDict": as_ordered,
    "defaultdict": as_default,
    "odd keys": as_odd_keys,
    "tuple": lambda mean, var: (mean, var),
    "list": lambda mean, var: [mean, var],
    "nested": lambda mean, var: (Moments(mean=mean, var=var), {"a": Pair(mean, var)}),
    "chex in chex": lambda m, v: Moments(mean=Moments(mean=m, var=v), var=v),
    "None inside": lambda mean, var: (mean, None, var),
}


# Flax itself makes plain dicts of these, where they may change.
COPIED = {"OrderedDict", "defaultdict"}


class Holds(nn.Module):
    """A parameter and state of one kind of value, looked at from inside."""

    kind: str
    note: Callable[[Any], None]

    @nn.compact
    def __call__(self, x):
        kinds = self.kind, "tuple" if self.kind in COPIED else self.kind
        made = [KINDS[kind](jnp.ones(4), jnp.full(4, 2.0)) for kind in kinds]
        p = self.param("p", lambda key: made[0])
        s = self.variable("moving", "s", lambda: made[1])
        self.note(jax.tree.structure((p, s.value)))
        one = jax.tree.leaves(p)[-1]
        s.value = jax.tree.map(lambda a: a + one, s.value)
        first, *_ = jax.tree.leaves(s.value)
        return x * first[None]


class Outer(nn.Module):
    kind: str
    note: Callable[[Any], None]
    lift: Any

    @nn.compact
    def __call__(self, x):
        return self.lift(Holds)(self.kind, self.note, name="holds")(x)


@pytest.mark.parametrize("lift", LIFTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_any_kind_is_what_flax_has(kind, lift):
    structures: list[Any] = []
    module = Outer(kind, structures.append, LIFTS[lift])
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    params, state = f.init(KEY, X)
    variables = module.init(KEY, X)
    assert_equal(to_flax(params, state, name="net"), variables)
    for _ in range(2):
        y, state = f.apply(params, state, KEY, X)
        theirs, changed = module.apply(variables, X, mutable=["moving"])
        variables = {**variables, **changed}
        assert_equal(y, theirs)
        assert_equal(to_flax(params, state, name="net"), variables)
    assert len(set(structures)) == 1
    assert_equal(to_haiku(variables, name="net"), (params, state))


def double(move, value, context):
    return move(twice(value))


def twice(tree):
    return jax.tree.map(lambda a: a * 2, tree)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_any_kind_under_a_getter_and_a_setter(kind):
    module = Outer(kind, [].append, LIFTS["plain"])

    def forward(x, getter=keep, setter=keep):
        with hk.custom_getter(getter), hk.custom_setter(setter):
            return FlaxModule(module, name="net")(x)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    variables = module.init(KEY, X)
    doubled = {**variables, "params": twice(variables["params"])}
    y, after = f.apply(params, state, KEY, X, double)
    theirs, changed = module.apply(doubled, X, mutable=["moving"])
    assert_equal(y, theirs)
    assert_equal(to_flax({}, after, name="net"), changed)
    _, after = f.apply(params, state, KEY, X, keep, double)
    _, changed = module.apply(variables, X, mutable=["moving"])
    assert_equal(to_flax({}, after, name="net"), twice(changed))
