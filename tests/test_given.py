"""Variables that are given and never made: told when init is over, and not before."""

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = jnp.ones([2, 3])


class Net(nn.Module):
    """Two methods, each with a layer of its own, and one that a switch makes."""

    def setup(self):
        self.encoder = nn.Dense(2)
        self.decoder = nn.Dense(3)
        self.extra = nn.Dense(2)
        self.norm = nn.BatchNorm(use_running_average=True)

    def encode(self, x, more=False):
        self.sow("seen", "x", x)
        return self.norm(self.extra(x) if more else self.encoder(x))

    def decode(self, x):
        return self.decoder(x)

    def __call__(self, x):
        return self.decode(self.encode(x))


def init(variables, forward, module=None):
    module = Net() if module is None else module
    net = lambda: FlaxModule(module, variables=variables, name="net")
    f = hk.transform_with_state(lambda x: forward(net(), x))
    return f.init(KEY, x=X)


CALLS = {
    "one call": lambda net, x: net(x),
    "two calls": lambda net, x: net(net(x, method="encode"), method="decode"),
    "remat": lambda net, x: hk.remat(net)(x),
}
KERNEL = np.ones([3, 2], np.float32)


@pytest.mark.parametrize("forward", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"params": {"Encoder": {"kernel": KERNEL}}},
            "collection 'params', path 'Encoder/kernel', which the module never made "
            "during init, so it would be lost. The nearest that it makes is "
            "'params/encoder/kernel'. Rename it",
        ),
        (
            {"params": {"encoder": {"w": KERNEL, "b": KERNEL}}},
            "path 'encoder/w' (and 1 more), which the module never made",
        ),
        (
            {"batch_stat": {"norm": {"mean": np.ones(2, np.float32)}}},
            "collection 'batch_stat', path 'norm/mean', which the module never made "
            "during init, so it would be lost. The nearest that it makes is "
            "'batch_stats/norm/mean'.",
        ),
    ],
)
def test_a_leaf_that_is_never_made_is_refused(given, told, forward):
    with pytest.raises(hk_bridge.VariablesError) as caught:
        init(given, forward)
    assert told in str(caught.value)
    assert "FlaxModule 'net' (linen Net)" in str(caught.value)
    assert "hk_bridge.migrate.diff(variables, module, x)" in str(caught.value)


MADE = {
    "by a later call": (
        {"params": {"decoder": {"kernel": KERNEL.T}}},
        lambda net, x: net(net(x, method="encode"), method="decode"),
    ),
    "by a switch": (
        {"params": {"extra": {"kernel": KERNEL}}},
        lambda net, x: (net(x), net(x, more=True, method="encode")),
    ),
    "inside hk.remat": (
        {"params": {"encoder": {"kernel": KERNEL}}},
        lambda net, x: hk.remat(net)(x),
    ),
    "state": (
        {"batch_stats": {"norm": {"mean": np.ones(2, np.float32)}}},
        lambda net, x: net(x),
    ),
    "sown": ({"seen": {"x": (X,)}}, lambda net, x: net(x)),
    "intermediates": ({"intermediates": {"x": (X,)}}, lambda net, x: net(x)),
    "nothing": ({"params": {}}, lambda net, x: net(x)),
    "no call": ({"params": {"a": KERNEL}}, lambda net, x: x),
}


@pytest.mark.parametrize(("given", "forward"), MADE.values(), ids=MADE)
def test_a_leaf_that_some_call_makes_is_none(given, forward):
    params, _ = init(given, forward)
    for module, leaves in given.get("params", {}).items():
        if params:
            kernel = params[f"net/{module}"]["kernel"]
            np.testing.assert_array_equal(kernel, leaves["kernel"])


@pytest.mark.parametrize("lifted", [nn.remat, nn.jit])
def test_inside_lifted_transforms(lifted):
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return lifted(nn.Dense)(2, name="inner")(x)

    call = lambda net, x: net(x)
    params, _ = init({"params": {"inner": {"kernel": KERNEL}}}, call, Outer())
    np.testing.assert_array_equal(params["net/inner"]["kernel"], KERNEL)
    with pytest.raises(hk_bridge.VariablesError, match="nearest.*'params/inner/kernel"):
        init({"params": {"inner_0": {"kernel": KERNEL}}}, call, Outer())


def test_a_module_of_the_same_name_makes_it_for_both():
    given = {"params": {"encoder": {"kernel": KERNEL}}}
    module = Net()

    def forward(x):
        for _ in range(2):
            x = FlaxModule(module, variables=given, name="net")(x)
        return x

    f = hk.transform_with_state(forward)
    params, _ = f.init(KEY, X)
    np.testing.assert_array_equal(params["net/encoder"]["kernel"], KERNEL)


def test_an_error_of_the_network_comes_first():
    def forward(x):
        FlaxModule(Net(), variables={"params": {"a": KERNEL}}, name="net")(x)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        hk.transform_with_state(forward).init(KEY, X)


def test_apply_does_not_care():
    f = hk.transform_with_state(lambda x: FlaxModule(Net(), name="net")(x))
    params, state = f.init(KEY, X)
    given = {"params": {"a": KERNEL}}
    f = hk.transform_with_state(
        lambda x: FlaxModule(Net(), variables=given, name="net")(x)
    )
    f.apply(params, state, None, X)


# What is given is the caller's.

CONTAINERS = {
    "a dict of other keys": lambda: {(0, 1): jnp.ones([2])},
    "a list": lambda: [jnp.ones([2])],
    "an array": lambda: jnp.ones([2]),
}


class Holds(nn.Module):
    """A variable that is no array, and is written: by Flax, or in place."""

    make: object
    in_place: bool = False

    @nn.compact
    def __call__(self, x):
        v = self.variable("stats", "v", self.make)
        p = self.param("p", lambda key: self.make())
        doubled = jax.tree.map(lambda a: a * 2, v.value)
        if not self.in_place or hasattr(doubled, "shape"):
            v.value = doubled
        else:
            for held in (v.value, p):
                key = 0 if isinstance(held, list) else (0, 1)
                held[key] = held[key] + 1
        return x + jax.tree.leaves(v.value)[0].sum()


class Around(nn.Module):
    make: object
    in_place: bool = False

    @nn.compact
    def __call__(self, x):
        return nn.remat(Holds)(self.make, self.in_place)(x)


@pytest.mark.parametrize("in_place", [False, True], ids=["put", "in place"])
@pytest.mark.parametrize("cls", [Holds, Around])
@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_what_is_given_is_not_changed(make, cls, in_place):
    module = cls(make, in_place)
    native = jax.tree.map(lambda a: a * 0, module.init(KEY, X))
    given = jax.tree.map(lambda a: a, native)
    f = hk.transform_with_state(
        lambda: FlaxModule(module, variables=given, name="net")(X)
    )
    made = [f.init(KEY) for _ in range(2)]
    with jax.checking_leaks():
        jax.eval_shape(f.init, KEY)
    assert_identical(given, native)
    assert_identical(made[0], made[1])


@pytest.mark.parametrize("cls", [Holds, Around])
@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_what_apply_is_given_is_not_changed(make, hooked, cls):
    """Under a getter parameters are read only when they are asked for."""

    def forward():
        with hk.custom_getter(lambda get, value, _: get(value), params=hooked):
            return FlaxModule(cls(make, True), name="net")(X)

    f = hk.transform_with_state(forward)
    held = f.init(KEY)
    before = jax.tree.map(lambda a: a, held)
    f.apply(*held, KEY)
    assert_identical(held, before)
