"""Each private part of NNX and JAX that the bridge of NNX leans on."""

import warnings

from flax import nnx
from flax.nnx import graph as nnx_graph
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hk_bridge._flax.nnx import graph
from hk_bridge._flax.nnx import lazy
from hk_bridge._flax.nnx import streams
from hk_bridge._flax.nnx.passed import is_passed

KEY = jax.random.key(0)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(2)])
        self.named = nnx.Dict({"a": nnx.BatchNorm(2, rngs=rngs)})
        self.again = self.layers[0]
        self.pair = (1, None)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)


def test_a_graph_is_put_together_with_its_objects():
    module, found = Net(nnx.Rngs(0)), nnx_graph.RefMap()
    graphdef, flat = nnx_graph.flatten(module, ref_index=found)
    assert [path for path, _ in flat] == sorted(p for p, _ in flat)
    index = nnx_graph.IndexMap()
    copy = nnx_graph.unflatten(graphdef, [x for _, x in flat], index_ref=index)
    objects = [x for x in index.values() if not isinstance(x, nnx.Variable)]
    assert copy in objects
    assert copy.layers[0] is copy.again
    assert any(x is copy.again for x in objects)
    assert any(x is module.again for x in found)
    assert len(objects) == len([x for x in found if not isinstance(x, nnx.Variable)])


def test_each_object_has_one_state_that_is_a_tree():
    found = graph.Graph(Net(nnx.Rngs(0)), False)
    assert not found.snapshot()._hidden
    for hidden in ([nnx.Linear(2, 2, rngs=nnx.Rngs(0))], {"a": jnp.ones(2)}):
        module = Net(nnx.Rngs(0))
        module.more = nnx.data(hidden)
        assert graph.Graph(module, False).snapshot()._hidden


def test_all_who_read_a_variable_read_its_raw_value():
    assert "_raw_value" in nnx.Variable.__slots__
    drawn = []

    def draw():
        drawn.append(KEY)
        return KEY

    def key():
        pending = lazy.Pending(draw, "noise", streams.stand_in())
        return streams._lazy(pending, nnx.RngKey(KEY, tag="noise"))

    readers = (
        lambda v: v.get_value(),
        lambda v: v[...],
        lambda v: v.get_raw_value(),
        jax.tree.leaves,
        lambda v: v.copy(),
        lambda v: nnx_graph.flatten({"v": v}, with_paths=False),
    )
    for number, read in enumerate(readers, 1):
        variable = key()
        assert len(drawn) == number - 1
        read(variable)
        read(variable)
        assert len(drawn) == number


@pytest.mark.skipif(not hasattr(nnx, "capture"), reason="sow stores without it")
def test_sow_stores_where_captures_are():
    class Sows(nnx.Module):
        def __call__(self, x):
            return self.sow(nnx.Intermediate, "h", x), self.sow(nnx.Cache, "c", x)

    module = Sows()
    module.__captures__ = nnx.data((nnx.Intermediate({}),))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert module(1.0) == (True, False)
    assert module.__captures__[0].get_raw_value() == {"h": (1.0,)}


CALLS = {
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "scan": lambda f: (
        lambda x, y: jax.lax.scan(lambda c, _: (f(*c), None), (x, y), None, length=2)[0]
    ),
    "while": lambda f: (
        lambda x, y: jax.lax.while_loop(
            lambda c: c[1].sum() < 0, lambda c: f(*c), (x, y)
        )
    ),
    "cond": lambda f: lambda x, y: jax.lax.cond(y.sum() > 0, f, f, x, y),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_passes_through_a_call_is_told(call):
    function = CALLS[call](lambda x, y: (x, y + 1.0))
    told = []

    def run(x, y):
        first, second = function(x, y)
        told.append((is_passed(first, x), is_passed(second, y)))
        return second

    jax.make_jaxpr(run)(jnp.ones(2), jnp.ones(2))
    assert told == [(True, False)]


def test_slices_and_axes_that_a_scan_puts_together_are_told():
    told = []

    def run(x):
        moved = jnp.moveaxis(x, 1, 0)
        same = jax.lax.scan(lambda c, s: (c, s), 0.0, moved)[1]
        told.append(is_passed(jnp.moveaxis(same, 0, 1), x))
        told.append(is_passed(same, x))
        other = jax.lax.scan(lambda c, s: (c, s * 2.0), 0.0, moved)[1]
        told.append(is_passed(jnp.moveaxis(other, 0, 1), x))
        return same

    jax.make_jaxpr(run)(jnp.ones((3, 2)))
    assert told == [True, False, False]


def test_constants_that_pass_are_told():
    told = []
    constants = (jnp.arange(3.0), np.arange(3.0, dtype=np.float32), jnp.float32(2.0))

    def run(y):
        for constant in constants:
            same, other = jax.jit(lambda c, y: (c, c * y))(constant, y)
            told.append((is_passed(same, constant), is_passed(other, constant)))
        return other

    jax.make_jaxpr(run)(1.0)
    assert told == [(True, False)] * 3


def test_values_outside_of_a_trace_are_told_by_their_bits():
    x = jnp.arange(3.0)
    assert is_passed(jax.jit(lambda x: x)(x), x) is True
    assert is_passed(x + 0.0, x) is True
    assert is_passed(x + 1.0, x) is False
    assert is_passed(x.astype(jnp.bfloat16), x) is False
    assert is_passed((x, x), x) is False
    assert is_passed(jax.random.fold_in(KEY, 1), KEY) is False
