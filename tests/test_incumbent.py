"""What `hk.experimental.flax.lift` gets wrong and we do not, one test a fault.

Most also show the fault in `lift`, so that a fix upstream is noticed.
"""

from catalogue import Autoencoder
from catalogue import Decode
from catalogue import Norm
from catalogue import array
import flax.errors
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from laws import names
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)
lift = hk.experimental.flax.lift


def moved(state, new):
    """Whether every leaf of state changed."""
    pairs = zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True)
    return [bool(jnp.any(a != b)) for a, b in pairs]


class InConstructor(hk.Module):
    def __init__(self, make):
        super().__init__(name="outer")
        self.net = make()

    def __call__(self, x):
        return self.net(x)


class InMethod(hk.Module):
    def __init__(self, make):
        super().__init__(name="outer")
        self.make = make

    def __call__(self, x):
        return self.forward(x)

    def forward(self, x):
        return self.make()(x)


@pytest.mark.parametrize("outer", [InConstructor, InMethod])
def test_state_moves_wherever_the_module_is_built(outer):
    def steps(make):
        f = hk.transform_with_state(lambda x: outer(make)(x))
        params, state = f.init(KEY, X)
        _, new = f.apply(params, state, None, X)
        return state, {m: new[m] for m in state}

    assert all(moved(*steps(lambda: FlaxModule(Norm(), name="net"))))
    assert not any(moved(*steps(lambda: lift(Norm(), name="net"))))


def test_two_modules_asking_for_one_name_keep_their_states_apart():
    def forward(x):
        return FlaxModule(Norm(), name="net")(x), FlaxModule(Norm(), name="net")(
            x + 1.0
        )

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    _, new = f.apply(params, state, None, X)
    assert len(names(state)) == len(moved(state, new)) == 4
    assert all(moved(state, new))
    one, two = (
        hk_bridge.to_flax({}, new, name=name)["batch_stats"]
        for name in ("net", "net_1")
    )
    assert any(moved(one, two))


class Sows(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4)(x)
        self.sow("features", "x", x)
        self.sow("intermediates", "x", x)
        return x


def test_sown_values_do_not_pile_up_in_state():
    f = hk.transform_with_state(lambda x: FlaxModule(Sows(), name="net")(x))
    params, state = f.init(KEY, X)
    assert state == {}
    for _ in range(3):
        _, state = f.apply(params, state, None, X)
        assert state == {}

    f = hk.transform_with_state(lambda x: lift(Sows(), name="net")(x))
    params, state = f.init(KEY, X)
    _, new = f.apply(params, state, None, X)
    assert jax.tree.structure(new) != jax.tree.structure(state)


def test_intermediates_reach_the_caller():
    def forward(x):
        net = FlaxModule(Sows(), name="net")
        return net(x, mutable=["intermediates"], capture_intermediates=True)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    (y, mutated), new = f.apply(params, state, None, X)
    assert state == new == {}
    assert_identical(mutated["intermediates"]["x"], (y,))
    assert_identical(mutated["intermediates"]["Dense_0"]["__call__"], (y,))


def test_calls_during_init_agree():
    outputs = []

    def forward(net):
        outputs.extend([net(X), net(X)])

    hk.transform(lambda: forward(FlaxModule(nn.Dense(3), name="net"))).init(KEY)
    assert_identical(outputs[0], outputs[1])
    hk.transform(lambda: forward(lift(nn.Dense(3), name="net"))).init(KEY)
    assert jnp.any(outputs[2] != outputs[3])


def test_init_runs_the_module_once():
    runs = []

    class Counts(nn.Module):
        @nn.compact
        def __call__(self, x):
            runs.append(1)
            return nn.Dense(3)(x)

    hk.transform(lambda x: FlaxModule(Counts(), name="net")(x)).init(KEY, X)
    assert len(runs) == 1
    hk.transform(lambda x: lift(Counts(), name="net")(x)).init(KEY, X)
    assert len(runs) == 3


def test_a_decode_cache_is_made_at_full_length_and_filled():
    x = array(2, 6, 4)
    f = hk.transform_with_state(lambda x: FlaxModule(Decode(), name="net")(x))
    params, state = f.init(KEY, x)
    (cache,) = state.values()
    assert cache["cached_key"].shape[1] == 6
    assert int(cache["cache_index"]) == 0
    for step in range(3):
        _, state = f.apply(params, state, None, x[:, step:])
    (cache,) = state.values()
    assert int(cache["cache_index"]) == 3
    filled = jnp.any(cache["cached_key"] != 0.0, axis=(0, 2, 3))
    assert filled.tolist() == [True] * 3 + [False] * 3


def test_keys_are_automatic():
    dropout = nn.Dropout(0.5, deterministic=False)
    f = hk.transform(lambda x: FlaxModule(dropout)(x))
    x = jnp.ones([100])
    assert 0 < int(jnp.sum(f.apply(f.init(KEY, x), KEY, x) == 0.0)) < 100
    f = hk.transform(lambda x: lift(dropout, name="net")(x))
    with pytest.raises(flax.errors.InvalidRngError):
        f.apply(f.init(KEY, x), None, x)


def test_it_is_a_module_with_methods_and_a_configuration():
    def forward(x):
        net = FlaxModule(Autoencoder(), name="net")
        assert isinstance(net, hk.Module)
        assert net.module == Autoencoder()
        return net(net(x, method="encode"), method="decode"), net(x)

    f = hk.transform(forward)
    one, two = f.apply(f.init(KEY, X), None, X)
    assert_identical(one, two)


def test_tabulate_sees_the_leaves():
    f = hk.transform_with_state(lambda x: FlaxModule(nn.Dense(3), name="net")(x))
    table = hk.experimental.tabulate(f)(X)
    assert "kernel: f32[4,3]" in table
    assert "bias: f32[3]" in table


class Hard(nn.Module):
    """A collection made after init, a `{}`-valued parameter, a name with a slash."""

    @nn.compact
    def __call__(self, x):
        assert self.param("empty", lambda key: {}) == {}
        if not self.is_initializing():
            self.put_variable("late", "x", x)
        return nn.Dense(3, name="a/b")(x)


def test_what_fails_in_lift():
    def forward(x):
        return FlaxModule(Hard(), name="net")(x, mutable=["late"])

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    assert sorted(params) == ["net/a%2Fb", "net/empty"]
    (y, mutated), new = f.apply(params, state, None, X)
    assert_identical(mutated, {"late": {"x": X}})
    variables = hk_bridge.to_flax(params, state, name="net")
    assert_identical(y, Hard().apply(variables, X, mutable=["late"])[0])
    assert new == {}


def count_lookups(n, use):
    """How often the names of the params are looked at while `n` modules are applied."""

    class Names(dict):
        looks = 0

        def __iter__(self):
            Names.looks += len(self)
            return super().__iter__()

        def items(self):
            Names.looks += len(self)
            return super().items()

    def forward(x):
        from haiku._src import base

        frame = base.current_frame()
        counted = Names(frame.params)
        with base.frame_stack(frame._replace(params=counted)):
            for i in range(n):
                x = use(i)(x)
        return x

    plain = hk.transform(lambda x: [use(i)(x) for i in range(n)])
    params = plain.init(KEY, X)
    hk.transform(forward).apply(params, None, X)
    return Names.looks


def test_the_cost_of_a_module_does_not_grow_with_their_number():
    use = lambda i: FlaxModule(nn.LayerNorm(), name=f"norm_{i}")
    assert count_lookups(40, use) <= 40
    lifted = lambda i: lift(nn.LayerNorm(), name=f"norm_{i}")
    assert count_lookups(40, lifted) >= 40 * 40
