"""`nnx.State` in and out, streams that are kept, references, and the pure handle."""

from flax import nnx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest

import hk_bridge
from hk_bridge.testing import assert_identical

KEY = jax.random.key(7)
X = jax.random.normal(jax.random.key(8), (3, 4))


class Memo(nnx.Variable):
    """A type of the user's own, which NNX has no name for."""


class Net(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.memo = Memo(jnp.zeros([]))

    def __call__(self, x):
        self.memo[...] += 1.0
        for layer in self.layers:
            x = layer(x)
        return self.dropout(self.norm(x))


def transform(module, **options):
    net = lambda: hk_bridge.FlaxModule(module, name="net", **options)
    return hk.transform_with_state(lambda x, **kwargs: net()(x, **kwargs))


def made():
    module = Net(nnx.Rngs(0))
    return module, transform(module).init(KEY, X)


def test_a_state_is_what_init_gives():
    module, (params, state) = made()
    assert_identical(hk_bridge.to_haiku(nnx.state(module), name="net"), (params, state))
    assert sorted(state) == ["net/Memo", "net/batch_stats/norm"]


def test_a_state_of_one_type_is_a_collection():
    module, (params, _) = made()
    own = {"params": nnx.state(module, nnx.Param)}
    assert_identical(hk_bridge.to_haiku(own, name="net"), (params, {}))


def test_haiku_fills_a_state():
    module, (params, state) = made()
    _, state = transform(module).apply(params, state, KEY, X)
    params = jax.tree.map(lambda x: x + 1.0, params)
    like = nnx.state(module)
    filled = hk_bridge.to_flax(params, state, name="net", like=like)
    assert type(filled) is type(like)
    assert jax.tree.structure(filled) == jax.tree.structure(like)
    other = Net(nnx.Rngs(1))
    nnx.update(other, filled)
    assert_identical(hk_bridge.to_haiku(nnx.state(other), name="net"), (params, state))
    assert_identical(nnx.state(module), like)


@pytest.mark.parametrize("whole", [True, False])
def test_a_state_gives_initial_values(whole):
    module, other = Net(nnx.Rngs(0)), Net(nnx.Rngs(1))
    given = nnx.state(other) if whole else {"params": nnx.state(other, nnx.Param)}
    params, _ = transform(module, variables=given).init(KEY, X)
    assert_identical(params, hk_bridge.to_haiku(nnx.state(other), name="net")[0])


def test_a_shape_alone_has_the_values_that_it_is_given():
    module = Net(nnx.Rngs(0))
    outline = nnx.eval_shape(lambda: Net(nnx.Rngs(0)))
    given = transform(outline, variables=nnx.state(module)).init(KEY, X)
    assert_identical(given, transform(module).init(KEY, X))
    with pytest.raises(hk_bridge.VariablesError, match="a shape without values at"):
        transform(outline).init(KEY, X)


def test_streams_that_are_kept_go_on_as_in_nnx():
    module = Net(nnx.Rngs(0))
    f = transform(module, keep_rngs=True)
    params, state = f.init(None, X)
    assert {"net/RngKey/dropout/rngs", "net/RngCount/dropout/rngs"} < set(state)
    native = nnx.clone(module)
    for _ in range(3):
        y, state = jax.jit(f.apply)(params, state, None, X)
        assert_identical(y, jax.jit(lambda m, x: m(x))(nnx.clone(native), X))
        native(X)
    assert int(state["net/RngCount/dropout/rngs"]["count"]) == 3
    assert int(module.dropout.rngs.count[...]) == 0


def test_references_are_values():
    class Net(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones((3, 4)), ref=True)
            self.n = nnx.Variable(jnp.zeros([]), ref=True)

        def __call__(self, x):
            self.n[...] += 1.0
            return x * self.w[...] + self.n[...]

    module = Net()
    f = transform(module)
    params, state = f.init(None, X)
    assert isinstance(params["net"]["w"], jax.Array)
    for n in (1.0, 2.0):
        y, state = jax.jit(f.apply)(params, state, None, X)
        assert_identical(y, X + n)
    assert float(module.n[...]) == 0.0


# The pure handle.


def test_a_pure_call_is_the_call():
    module, (params, state) = made()

    def forward(x):
        net = hk_bridge.FlaxModule(module, name="net")
        before = net.variables
        keys = {"default": KEY}
        mutable = ["batch_stats", "Memo"]
        pure, mutated = net.apply(before, x, rngs=keys, mutable=mutable)
        assert_identical(net.variables, before)
        y = net(x, rngs=keys)
        after = net.variables
        return (pure, mutated), (y, {c: after[c] for c in mutable})

    (ours, theirs), _ = hk.transform_with_state(forward).apply(params, state, None, X)
    assert_identical(ours, theirs)


def test_a_gradient_inside_a_transform():
    module, (params, state) = made()
    module.eval()

    def forward(x):
        net = hk_bridge.FlaxModule(module, name="net")
        rest = net.variables
        loss = lambda p: net.apply({**rest, "params": p}, x, mutable=["Memo"])[0].sum()
        return jax.grad(loss)(rest["params"])

    gradient, _ = hk.transform_with_state(forward).apply(params, state, None, X)
    split = nnx.split(module, nnx.Param, ...)
    loss = lambda p: nnx.merge(split[0], p, split[2], copy=True)(X).sum()
    expected = nnx.to_pure_dict(jax.grad(loss)(split[1]))
    assert_identical(gradient, expected)


def test_a_pure_call_has_no_key_of_haiku():
    module, (params, state) = made()
    forward = lambda x: (
        lambda net: net.apply(net.variables, x, mutable=["batch_stats", "Memo"])
    )(hk_bridge.FlaxModule(module, name="net"))
    with pytest.raises(Exception, match='"default" has no key') as caught:
        hk.transform_with_state(forward).apply(params, state, KEY, X)
    assert type(caught.value).__name__ == "InvalidRngError"


def test_of_linen_it_is_flaxs_own():
    module = nn.Dense(3)

    def forward(x):
        net = hk_bridge.FlaxModule(module, name="net")
        return net(x), net.apply(net.variables, x), module.apply(net.variables, x)

    f = hk.transform(forward)
    params = hk.transform(lambda x: hk_bridge.FlaxModule(module, name="net")(x)).init(
        KEY, X
    )
    ours, pure, native = f.apply(params, None, X)
    assert_identical(ours, pure)
    assert_identical(pure, native)


@hk_bridge.wrap
class Wrapped(Net):
    """A wrapped class, which is told to train and to evaluate."""


def test_a_wrapped_class_is_told_its_mode():
    def forward(x, train):
        net = Wrapped(name="net")
        (net.train if train else net.eval)()
        return net(x)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X, True)
    y, after = f.apply(params, state, None, X, False)
    assert_identical(after["net/batch_stats/norm"], state["net/batch_stats/norm"])
    native = nnx.clone(Net(nnx.Rngs(0)))
    variables = hk_bridge.to_flax(params, state, name="net", like=nnx.state(native))
    nnx.update(native, variables)
    native.eval()
    assert_identical(y, native(X))
    with pytest.raises(Exception, match="has no key"):
        f.apply(params, state, None, X, True)


def test_attributes_of_a_wrapped_class_have_haikus_values():
    def forward(x):
        net = Wrapped(name="net")
        y = net(x)
        kernel = net.layers[0].kernel[...]
        return y, kernel, net.memo[...], net.dropout.rate

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    doubled = jax.tree.map(lambda x: x * 2.0, params)
    (_, kernel, memo, rate), state = jax.jit(f.apply)(doubled, state, KEY, X)
    assert_identical(kernel, doubled["net/layers/%i0"]["kernel"])
    assert (float(memo), rate) == (1.0, 0.5)
    assert float(state["net/Memo"]["memo"]) == 1.0


def test_a_leaf_that_like_has_not_is_refused():
    state = nnx.state(nnx.Linear(4, 3, rngs=nnx.Rngs(0)))
    params, _ = hk_bridge.to_haiku(state, name="net")
    stats = {"net/batch_stats": {"mean": jnp.ones(3)}}
    hk_bridge.to_flax(params, stats, name="net", like=state)
    for module, name in (("net", "kernl"), ("net/a", "kernel")):
        bundle = {**params.get(module, {}), name: jnp.ones(3)}
        more = {**params, module: bundle}
        with pytest.raises(hk_bridge.VariablesError, match="no place in the nnx.State"):
            hk_bridge.to_flax(more, {}, name="net", like=state)
