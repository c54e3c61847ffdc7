"""That the run of Flax's own tests counts what goes through Haiku, and can fail."""

from downstream.flax_suite import __main__ as suite
from downstream.flax_suite import reroute
from downstream.flax_suite import verdict
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

X = jnp.ones([2, 4])


class Net(nn.Module):
    """A box, state, sowing, and a call of another module inside."""

    @nn.compact
    def __call__(self, x):
        boxed = nn.with_partitioning(nn.initializers.ones, ("model",))
        scale = self.param("scale", boxed, (1, 4))
        count = self.variable("counts", "calls", lambda: jnp.zeros([]))
        count.value += 1
        inner = nn.Dense(4, parent=None)
        x = inner.apply(inner.init(jax.random.key(1), x), x)
        self.sow("intermediates", "x", x)
        return x * scale


def run():
    module, key = Net(), jax.random.key(0)
    variables = module.init(key, X)
    y, mutated = module.apply(variables, X, mutable=["counts", "intermediates"])
    made = module.apply({}, X, rngs={"params": key}, mutable=True)
    return variables, y, mutated, made, module.init_with_output(key, X, mutable=True)


def test_rerouted_calls_give_what_flax_gives():
    native = run()
    with reroute.rerouted() as calls:
        bridged = run()
    assert jax.tree.structure(bridged) == jax.tree.structure(native)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, bridged, native))
    assert calls == reroute.Calls(rerouted=4, native=0)


def test_a_call_without_counterpart_stays_native():
    with reroute.rerouted() as calls, pytest.raises(Exception, match="RNGs should be"):
        Net().init(None, X)
    assert calls == reroute.Calls(rerouted=0, native=1)


def test_a_call_of_a_class_stays_native():
    with reroute.rerouted() as calls, pytest.raises(Exception, match="instance"):
        Net.init_with_output(jax.random.key(0), X)
    assert calls == reroute.Calls(rerouted=0, native=1)


def test_bound_modules_stay_native():
    module = nn.Dense(3)
    bound = module.bind(module.init(jax.random.key(0), X))
    with reroute.rerouted() as calls:
        bound.apply(bound.variables, X)
    assert calls == reroute.Calls(rerouted=0, native=1)


def test_collections_that_nobody_sows_into_come_from_haiku(monkeypatch):
    monkeypatch.setattr(reroute, "SOWN", set())

    class Sows(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("losses", "l2", x)

    with (
        reroute.rerouted(),
        pytest.raises(AssertionError, match=r"init left no \['losses'\] in Haiku"),
    ):
        Sows().init(jax.random.key(0), X)


def test_flax_is_as_it_was_afterwards():
    before = nn.Module.apply, nn.Module.init_with_output
    with pytest.raises(ValueError, match="stop"), reroute.rerouted():
        raise ValueError("stop")
    assert (nn.Module.apply, nn.Module.init_with_output) == before


def row(test, outcome, rerouted=1):
    return {"test": test, "outcome": outcome, "rerouted": rerouted, "error": "why"}


def test_only_what_passes_natively_and_is_rerouted_counts():
    native = [row("a", "passed"), row("b", "failed"), row("c", "passed")]
    haiku = [row("a", "passed"), row("b", "failed"), row("c", "passed", rerouted=0)]
    tests = verdict.paired(native, haiku)
    assert [test.name for test in tests if test.counted] == ["a"]
    assert verdict.surprises(tests, {}) == []


@pytest.mark.parametrize(
    ("haiku", "listed", "said"),
    [
        ([row("a", "failed")], {}, ["fails: a: why"]),
        ([row("a", "failed")], {"a": "reason"}, []),
        ([row("a", "passed")], {"a": "reason"}, ["passes, take it off the list: a"]),
        ([row("a", "passed"), row("a", "failed")], {}, ["fails: a: why"]),
        ([], {}, ["fails: a: it did not finish"]),
    ],
)
def test_surprises(haiku, listed, said):
    tests = verdict.paired([row("a", "passed")], haiku)
    assert verdict.surprises(tests, listed) == said


def test_what_is_listed_but_not_counted_is_told():
    tests = verdict.paired([row("f::a", "failed")], [row("f::a", "failed")])
    assert verdict.idle(tests, {"f::a": "reason", "g::a": "reason"}) == ["f::a"]


def test_every_listed_test_has_one_reason():
    groups = suite.groups()
    tests = [test for group in groups for test in group["tests"]]
    assert all(group["reason"] for group in groups)
    assert len(tests) == len(set(tests)) == len(suite.listed())
