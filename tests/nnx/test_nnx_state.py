"""The state of an NNX module in Haiku: what is kept, what lives for one call."""

from catalogue import array
from catalogue_nnx import Count
from catalogue_nnx import Metrics
from catalogue_nnx import Sow
from catalogue_nnx_models import Gemma
from catalogue_nnx_models import Mlp
from catalogue_nnx_models import decoding
from catalogue_nnx_models import evaluated
from flax import errors
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from replay import captured
from replay import pure

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import to_flax
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)


class Counter(nnx.Module):
    def __init__(self):
        self.count = Count(jnp.zeros([], jnp.int32))

    def __call__(self, x):
        self.count[...] += 1
        return x + self.count[...].astype(x.dtype)

    def read(self):
        return self.count[...]

    def reset(self):
        self.count[...] = jnp.zeros_like(self.count[...])


def transform(module, method=None, **options):
    def forward(*args, **kwargs):
        net = FlaxModule(module, name="net")
        return net(*args, method=method, **options, **kwargs)

    return hk.transform_with_state(forward)


def test_init_gives_what_the_instance_holds():
    module = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    module.mean[...] = array(4)
    params, state = transform(module).init(None, X)
    assert params == {"net": {"bias": module.bias[...], "scale": module.scale[...]}}
    assert list(state) == ["net/batch_stats"]
    assert state["net/batch_stats"]["mean"] is module.mean[...]
    assert state["net/batch_stats"]["var"] is module.var[...]


def test_statistics_over_steps():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))
    f = transform(module, rngs={"default": 0})
    params, state = f.init(None, X)
    copy = nnx.clone(module)
    for step in range(3):
        x = array(2, 4, seed=step)
        nnx.reseed(copy, default=0)
        y, state = f.apply(params, state, None, x)
        assert_identical(y, copy(x))
        stats = to_flax({}, state, name="net")["batch_stats"]
        assert_identical(stats, pure(copy, nnx.BatchStat))


def test_the_mode_of_the_instance_counts():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))
    f = transform(module)
    params, state = f.init(KEY, X)
    module.eval()
    y, same = f.apply(params, state, None, X)
    assert_identical(y, nnx.clone(module)(X))
    assert_identical(same, state)
    module.train()
    y, other = f.apply(params, state, KEY, X)
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), state, other)
    assert all(jax.tree.leaves(changed))
    view = evaluated(module)
    y, same = transform(view).apply(params, state, None, X)
    assert_identical(y, nnx.clone(view)(X))
    assert_identical(same, state)


# Caches.


def test_decoding_token_by_token():
    model = decoding(nnx.Rngs(0))
    tokens = jnp.array([[0, 2, 1, 6], [4, 1, 3, 3]])
    f = transform(model)
    params, state = f.init(None, tokens[:, :1])
    assert all(int(b["end"]) == 0 for n, b in state.items() if "end" in b)
    step = jax.jit(f.apply)
    copy = nnx.clone(model)
    forward = nnx.jit(lambda model, token: model(token))
    for i in range(4):
        y, state = step(params, state, None, tokens[:, i : i + 1])
        assert_identical(y, forward(copy, tokens[:, i : i + 1]))
        cache = to_flax({}, state, name="net")["cache"]
        assert_identical(cache, pure(copy, nnx.Cache))
    assert step._cache_size() == 1


def test_what_is_decoded_is_what_the_whole_text_gives():
    model = Gemma(7, 8, 2, rngs=nnx.Rngs(0))
    model.eval()
    tokens = jnp.array([[0, 2, 1, 6], [4, 1, 3, 3]])
    f = transform(model)
    params, state = f.init(None, tokens)
    assert state == {}
    whole, _ = f.apply(params, state, None, tokens)
    model.init_cache(2, 6)
    f = transform(model)
    _, state = f.init(None, tokens)
    prompt, state = f.apply(params, state, None, tokens[:, :3])
    last, _ = f.apply(params, state, None, tokens[:, 3:])
    decoded = jnp.concatenate([prompt, last], axis=1)
    assert jnp.allclose(decoded, whole, atol=1e-5)


# Other state.


def test_methods_read_and_write_state():
    module = Counter()
    calls = {name: transform(module, name) for name in (None, "read", "reset")}
    params, state = calls[None].init(None, X)
    assert int(state["net/Count"]["count"]) == 0
    for _ in range(2):
        _, state = calls[None].apply(params, state, None, X)
    assert int(calls["read"].apply(params, state, None)[0]) == 2
    _, state = calls["reset"].apply(params, state, None)
    assert int(state["net/Count"]["count"]) == 0


def test_a_second_call_at_init_sees_the_first():
    module = Counter()

    def forward():
        net = FlaxModule(module, name="net")
        return net(X), net(X), net(method="read")

    seen: list = []
    _, state = hk.transform_with_state(lambda: seen.extend(forward())).init(None)
    one, two, count = seen
    assert_identical(two, one + 1)
    assert int(count) == 2
    assert int(state["net/Count"]["count"]) == 0


def test_metrics():
    module = Metrics(nnx.Rngs(0))
    f = transform(module)
    params, state = f.init(None, X)
    names = ["net/MetricState/metrics/accuracy", "net/MetricState/metrics/loss"]
    assert sorted(state) == [*names, "net/MetricState/spread"]
    copy = nnx.clone(module)
    for step in range(2):
        y, state = f.apply(params, state, None, array(2, 4, seed=step))
        assert_identical(y, copy(array(2, 4, seed=step)))
    with jax.numpy_dtype_promotion("standard"):
        compute = lambda m: (m.metrics.compute(), m.spread.compute())
        y, _ = transform(module, compute).apply(params, state, None)
        assert_identical(y, compute(copy))


def test_a_transform_without_state_is_an_error():
    f = hk.transform(lambda: FlaxModule(Counter(), name="net")(X))
    with pytest.raises(Exception, match="transform_with_state"):
        f.init(None)


# What may change.


def test_mutable_gives_what_changed():
    module = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    f = transform(module, mutable=["batch_stats"])
    params, state = f.init(None, X)
    (y, mutated), new = f.apply(params, state, None, X)
    copy = nnx.clone(module)
    assert_identical(y, copy(X))
    assert_identical(mutated, {"batch_stats": pure(copy, nnx.BatchStat)})
    assert_identical(to_flax({}, new, name="net"), mutated)


@pytest.mark.parametrize("mutable", [False, ["cache"], "intermediates"])
def test_what_may_not_change_is_an_error(mutable):
    module = nnx.BatchNorm(4, rngs=nnx.Rngs(0))
    params, state = transform(module).init(None, X)
    with pytest.raises(errors.ModifyScopeVariableError, match="batch_stats"):
        transform(module, mutable=mutable).apply(params, state, None, X)
    module.eval()
    y, _ = transform(module, mutable=mutable).apply(params, state, None, X)
    y = y if mutable is False else y[0]
    assert_identical(y, module(X))


class Writes(nnx.Module):
    """Writes its own parameter."""

    def __init__(self):
        self.w = nnx.Param(jnp.ones([]))

    def __call__(self):
        self.w[...] += 1.0
        return self.w[...]


def test_parameters_are_not_written():
    f = transform(Writes())
    params, state = f.init(None)
    assert params == {"net": {"w": 1.0}}
    with pytest.raises(errors.ModifyScopeVariableError, match="w"):
        f.apply(params, state, None)
    f = transform(Writes(), mutable=["params"])
    (y, mutated), _ = f.apply(params, state, None)
    assert_identical((y, mutated), (jnp.float32(2.0), {"params": {"w": y}}))


@pytest.mark.parametrize("lift", [nnx.remat, nnx.jit])
def test_what_only_passed_through_is_not_written(lift):
    class Passes(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.count = Count(jnp.zeros([]))

        def __call__(self, x):
            read = lambda m, x: m.norm(x, use_running_average=True) + m.count[...]
            return lift(read)(self, x)

    module = Passes(nnx.Rngs(0))
    written = []

    def setter(next_setter, value, context):
        written.append(context.full_name)
        return next_setter(value)

    def forward(x):
        with hk.custom_setter(setter):
            return FlaxModule(module)(x, mutable=False)

    f = hk.transform_with_state(forward)
    params, state = f.init(None, X)
    y, after = jax.jit(f.apply)(params, state, None, X)
    assert written == []
    assert_identical(after, state)
    assert_identical(f.apply(params, state, None, X)[1], state)


@pytest.mark.parametrize("collections", [0, 1])
def test_a_new_variable_after_init_is_an_error(collections):
    class Late(nnx.Module):
        def __init__(self):
            self.kept = nnx.List([nnx.Cache(jnp.zeros([]))] * collections)

        def __call__(self, late):
            if late:
                self.memory = nnx.Cache(jnp.zeros([]))
            return late

    f = hk.transform_with_state(lambda late: FlaxModule(Late(), name="net")(late))
    params, state = f.init(None, False)
    error = hk_bridge.StateStructureError if state else errors.ModifyScopeVariableError
    with pytest.raises(error, match="memory"):
        f.apply(params, state, None, True)


def test_a_variable_that_init_makes_is_kept():
    class Lazy(nnx.Module):
        def __init__(self):
            self.last = nnx.data(None)

        def __call__(self, x):
            if self.last is None:
                self.last = nnx.Cache(jnp.zeros_like(x))
            y = x + self.last[...]
            self.last[...] = x
            return y

    f = hk.transform_with_state(lambda x: FlaxModule(Lazy(), name="net")(x))
    params, state = f.init(None, X)
    assert list(state) == ["net/cache"]
    y, state = f.apply(params, state, None, X)
    y, _ = f.apply(params, state, None, X)
    assert_identical(y, X + X)


# What is sown.

SEQUENCE = array(2, 5, 4)


def test_sown_values_come_out():
    module = Sow(nnx.Rngs(0))
    f = transform(module, mutable=["intermediates", "batch_stats"])
    params, state = f.init(None, SEQUENCE)
    assert list(state) == ["net/batch_stats/norm"]
    (y, mutated), after = f.apply(params, state, None, SEQUENCE)
    assert list(after) == list(state)
    expected, sown = captured(module, SEQUENCE)
    assert_identical(y, expected)
    assert_identical(mutated["intermediates"], sown)
    assert {"h", "sum", "attention"} == set(mutated["intermediates"])


def test_sown_values_are_dropped():
    module = Sow(nnx.Rngs(0))
    f = transform(module)
    params, state = f.init(None, SEQUENCE)
    y, _ = f.apply(params, state, None, SEQUENCE)
    assert_identical(y, captured(module, SEQUENCE)[0])


def test_captured_outputs():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))
    module.eval()
    f = transform(module, capture_intermediates=True, mutable=["intermediates"])
    params, state = f.init(None, X)
    (y, mutated), _ = f.apply(params, state, None, X)
    found = mutated["intermediates"]
    assert_identical(found["__call__"], (y,))
    assert_identical(found["linear1"], {"__call__": (module.linear1(X),)})
    assert {*found} == {"__call__", "linear1", "bn", "dropout", "linear2"}
    only = lambda module, name: isinstance(module, nnx.Linear)
    f = transform(module, capture_intermediates=only, mutable=["intermediates"])
    (y, mutated), _ = f.apply(params, state, None, X)
    assert {*mutated["intermediates"]} == {"linear1", "linear2"}


def test_perturbations():
    class Perturbed(nnx.Module):
        def __call__(self, x):
            return 3.0 * self.perturb("p", x)

    params, state = transform(Perturbed()).init(None, X)
    assert (params, state) == ({}, {})
    assert_identical(transform(Perturbed()).apply({}, {}, None, X)[0], 3.0 * X)
    f = transform(Perturbed(), mutable=["perturbations"])
    (y, mutated), _ = f.apply(params, state, None, X)
    assert_identical(y, 3.0 * X)
    assert_identical(mutated, {"perturbations": {"p": jnp.zeros_like(X)}})


class Loss(nnx.Variable):
    """A type into which a module sows, and of which it has a Variable."""


class SowsIntoItsOwn(nnx.Module):
    def __init__(self):
        self.loss = Loss(jnp.zeros([]))

    def __call__(self, x):
        self.sow(Loss, "loss", x.sum(), reduce_fn=lambda a, b: a + b)
        if hasattr(nnx, "capture"):  # before that, it makes a Variable
            self.sow(Loss, "other", x)
        return x


@pytest.mark.parametrize("run", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_what_is_sown_into_a_variable_is_written(run):
    f = transform(SowsIntoItsOwn())
    params, state = f.init(None, X)
    assert {n: [*b] for n, b in state.items()} == {"net/Loss": ["loss"]}
    for times in (1, 2):
        _, state = run(f.apply)(params, state, None, X)
        assert jnp.allclose(state["net/Loss"]["loss"], times * X.sum())
