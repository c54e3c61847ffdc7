"""`partition_specs` of Flax's older metadata: `flax.linen.partitioning`, as in T5X."""

import functools

from catalogue import array
import flax.linen as nn
from flax.linen import partitioning
import haiku as hk
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.sharding import partition_specs
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(4, 8)
RULES = [("embed", None), ("mlp", "model"), ("layers", "data")]
INIT = nn.initializers.lecun_normal()
param = partitioning.param_with_axes
variable = partitioning.variable_with_axes


class Dense(nn.Module):
    """As T5X has it."""

    width: int = 16
    names: tuple = ("embed", "mlp")

    @nn.compact
    def __call__(self, x):
        kernel = param("kernel", INIT, (x.shape[-1], self.width), axes=self.names)
        bias = param("bias", nn.initializers.zeros, (self.width,), axes=None)
        return x @ kernel + bias[None]


class Mlp(nn.Module):
    dense: type[nn.Module] = Dense

    @nn.compact
    def __call__(self, x, _=None):
        y = nn.gelu(self.dense(16, ("embed", "mlp"), name="up")(x))
        y = self.dense(8, ("mlp", "embed"), name="down")(y)
        return x + y, None


class Boxes(nn.Module):
    """Beside them a box, which names its axes itself."""

    @nn.compact
    def __call__(self, x):
        boxed = nn.with_logical_partitioning(INIT, ("embed", "mlp"))
        return Mlp(name="mlp")(nn.Dense(8, kernel_init=boxed)(x))[0]


class Layers(nn.Module):
    cls: type[nn.Module] = Mlp

    @nn.compact
    def __call__(self, x):
        layers = partitioning.scan_with_axes(
            self.cls,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
            axis_name="layers",
        )
        return layers(name="layers")(x, None)[0]


class State(nn.Module):
    @nn.compact
    def __call__(self, x):
        init = lambda: jnp.zeros([8])
        mean = variable("stats", "mean", init, axes=("mlp",))
        last = variable("stats", "last_axes", init)
        w = param("w", INIT, (8, 1), axes=("mlp", None))
        mean.value = mean.value + x.sum(0) * w[:, 0]
        return x + mean.value[None] + last.value[None]


class Twice(nn.Module):
    """Says it twice, and uses such a collection for things of its own."""

    @nn.compact
    def __call__(self, x):
        dense = Dense()
        y = dense(x) + dense(2 * x)
        self.sow("params_axes", "other", y)
        self.sow("params_axes", "bias_axes", y)
        y = y + self.param("tree", INIT, (1, 16))
        names = partitioning.AxisMetadata({"a": ("embed",)})
        self.sow("params_axes", "tree_axes", names, reduce_fn=lambda _, x: x)
        return y


MODULES = {
    "dense": Dense,
    "mlp": Mlp,
    "boxes": Boxes,
    "remat": functools.partial(Mlp, nn.remat(Dense)),
    "remat of old": functools.partial(Mlp, partitioning.remat(Dense)),
    "jit": functools.partial(Mlp, nn.jit(Dense)),
    "scan": Layers,
    "scan of remat": functools.partial(Layers, nn.remat(Mlp)),
    "state": State,
    "twice": Twice,
}


def flax_specs(module, rules):
    """What Flax says, in Haiku's trees."""
    made = jax.eval_shape(module.init, KEY, X)
    kept = {c: v for c, v in made.items() if not c.endswith("_axes")}
    is_box = lambda leaf: isinstance(leaf, nn.Partitioned)
    own = lambda leaf: leaf.get_partition_spec() if is_box(leaf) else P()
    specs = jax.tree.map(own, kept, is_leaf=is_box)
    for collection in kept:
        axes = made.get(f"{collection}_axes", {})
        is_old = lambda leaf: isinstance(leaf, partitioning.AxisMetadata)
        flat = jax.tree.leaves_with_path(axes, is_leaf=is_old)
        for path, found in flat:
            *parents, last = [part.key for part in path if hasattr(part, "key")]
            if is_old(found) and isinstance(found.names, tuple):
                level = functools.reduce(dict.__getitem__, parents, specs[collection])
                level[last.removesuffix("_axes")] = P(*found.names)
    if rules:
        specs = partitioning.logical_to_mesh(specs, rules)
    return hk_bridge.to_haiku(specs, name="net")


@pytest.mark.parametrize("rules", [(), RULES], ids=["no rules", "rules"])
@pytest.mark.parametrize("name", MODULES)
def test_specs_are_flaxs(name, rules):
    module = MODULES[name]()
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    with nn.logical_axis_rules(rules):
        specs = partition_specs(f.init, KEY, X)
    assert specs == flax_specs(module, rules)
    found = jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, P))
    assert any(spec != P() for spec in found)


def test_they_are_those_that_flax_names():
    """By Flax's own function for them."""
    module = Layers()
    names = partitioning.get_axis_names(module.init(KEY, X)["params_axes"])
    f = hk.transform(lambda x: FlaxModule(module, name="net")(x))
    params, _ = partition_specs(f.init, KEY, X)
    assert params["net/layers/up"]["kernel"] == P("layers", "embed", "mlp")
    assert params["net/layers/up"]["kernel"] == names["layers"]["up"]["kernel"]
    assert params["net/layers/up"]["bias"] == P()


@pytest.mark.parametrize("name", MODULES)
def test_params_and_state_are_without_them(name):
    module = MODULES[name]()
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    params, state = f.init(KEY, X)
    assert "_axes/" not in " ".join([*params, *state])
    variables = hk_bridge.to_flax(params, state, name="net")
    y, _ = f.apply(params, state, None, X)
    assert_identical(y, module.apply(variables, X, mutable=["stats"])[0])
