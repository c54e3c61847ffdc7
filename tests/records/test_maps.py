"""What `nn.map_variables` and `nn.add_metadata_axis` change is written, and no more."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from recorded import LIFTS
from recorded import NAME
from recorded import Body
from recorded import Layer
from recorded import X
from recorded import assert_as_native
from recorded import fresh

from hk_bridge import FlaxModule
from hk_bridge import to_haiku
from hk_bridge.testing import assert_identical


def same(tree):
    return tree


def doubled(tree):
    return jax.tree.map(lambda v: v * 2, tree)


def mapped(cls, out=same, init=False):
    return nn.map_variables(cls, "stats", same, out, init=init, mutable=True)


def metadata(cls):
    return nn.add_metadata_axis(cls, {"params": 0, "stats": 0})


MAPS = {
    "mapped": mapped,
    "run twice": lambda cls: mapped(cls, init=True),
    "metadata": metadata,
    "of another collection": lambda cls: nn.map_variables(
        cls, "params", same, same, mutable=True
    ),
    "mapped twice": lambda cls: mapped(metadata(cls)),
}


# Two or three of each kind: the transforms are tested one by one elsewhere.
INSIDE = ("plain", "remat", "jit", "scan", "vmap", "remat_scan", "scan_jit")


def around(lift):
    """A class whose module has a lifted one in it."""

    class Around(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = lift(Body, Layer)()(x)
            return y[0] if isinstance(y, tuple) else y

    return Around


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("lift", INSIDE)
@pytest.mark.parametrize("name", MAPS)
def test_state_lifted_inside_a_map_is_written_if_code_wrote_it(name, lift, jit):
    assert_as_native(MAPS[name](around(LIFTS[lift])), X, jit=jit, steps=2)


class Reader(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.variable("stats", "r", jnp.ones, []).value


MIXED = {
    "map": lambda cls, out: mapped(cls, out),
    "remat of map": lambda cls, out: nn.remat(mapped(cls, out)),
    "map of remat": lambda cls, out: mapped(nn.remat(cls), out),
    "jit of map": lambda cls, out: nn.jit(mapped(cls, out)),
    "map of jit": lambda cls, out: mapped(nn.jit(cls), out),
    "jit of remat of map": lambda cls, out: nn.jit(nn.remat(mapped(cls, out))),
    "map of map": lambda cls, out: metadata(mapped(cls, out)),
    "in a map": lambda cls, out: mapped(metadata(cls), out),
    "run twice": lambda cls, out: mapped(cls, out, init=True),
    "remat, run twice": lambda cls, out: mapped(nn.remat(cls), out, init=True),
}


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("out", [same, doubled])
@pytest.mark.parametrize("name", MIXED)
def test_what_a_map_itself_changes_is_written(name, out, jit):
    """Whatever transforms are around it, or right inside it."""
    module = MIXED[name](fresh(Reader), out)()
    variables = module.init(jax.random.key(0), X)
    expected = module.apply(variables, X, mutable=["stats"])[1]
    f = hk.transform_with_state(lambda: FlaxModule(module, name=NAME)(X))
    in_haiku = lambda tree: to_haiku(tree, name=NAME, collections=["stats"])
    params, state = in_haiku(variables)
    for _ in range(2):  # the second has the trace of the first
        apply = jax.jit(f.apply) if jit else f.apply
        assert_identical(apply(params, state, None)[1], in_haiku(expected)[1])
