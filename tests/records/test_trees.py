"""Values that are trees."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from recorded import KEY
from recorded import LIFTS
from recorded import NAME
from recorded import X
from recorded import assert_very_same
from recorded import bridged
from recorded import copied

import hk_bridge
from hk_bridge.testing import assert_identical


@pytest.mark.parametrize("lift", ["plain", "remat", "jit"])
@pytest.mark.parametrize(
    "value",
    [
        {(0, 1): 0.0, (1, 0): 0.0},
        {1.5: {"a": 0.0}},
        {"a": {(0,): 0.0}, "b": {"c": 0.0}},
        [0.0, {(2,): 0.0}],
        (None, {True: 0.0}),
    ],
    ids=str,
)
def test_a_value_that_is_a_tree(value, lift):
    class Tree(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.variable("stats", "w", lambda: jax.tree.map(jnp.asarray, value))
            if not self.is_initializing():
                w.value = jax.tree.map(lambda v: v + 8, w.value)
            return x + sum(jax.tree.leaves(w.value))

    module = LIFTS[lift](Tree, None)()
    variables = module.init(KEY, X)
    f = bridged(lambda: module, X)
    params, state = f.init(KEY)
    assert_identical(hk_bridge.to_flax(params, state, name=NAME), variables)
    y, changed = module.apply(variables, X, mutable=["stats"])
    for apply in (f.apply, f.apply, jax.jit(f.apply)):
        before = copied(state)
        output, new = apply(params, state, None)
        assert_very_same(state, before)
        assert_identical(output, y)
        assert_identical(hk_bridge.to_flax({}, new, name=NAME), changed)


def test_a_module_that_changes_a_dict_in_place_changes_its_own():
    class InPlace(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.variable("stats", "w", lambda: [{"a": jnp.zeros([])}])
            w.value[0]["a"] = w.value[0]["a"] + 1
            return x + w.value[0]["a"]

    f = bridged(InPlace, X)
    params, state = f.init(KEY)
    before = copied(state)
    first, _ = f.apply(params, state, None)
    again, _ = f.apply(params, state, None)
    assert_very_same(state, before)
    assert_identical(again, first)
