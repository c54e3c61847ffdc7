"""`hk_bridge.testing.check`: what it passes, and that it can fail."""

import itertools

from catalogue import KEY
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import testing

X = jnp.ones([2, 4])


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(3)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        self.sow("losses", "l2", jnp.sum(x**2))
        return nn.Dropout(0.5, deterministic=not train)(x)


def failed(module, *args, **kwargs):
    """The checks that fail, by name."""
    with pytest.raises(AssertionError) as info:
        testing.check(module, *args, **kwargs)
    (report,) = info.value.args
    assert not report.ok
    assert "is NOT the same" in str(info.value)
    assert "DIFFERS" in str(info.value)
    return {r.check: r.detail for r in report.results if r.ok is False}


def details(report):
    assert report.ok
    return {r.check: r.detail for r in report.results}


def test_state_dropout_and_sown():
    report = testing.check(Net(), X, train=True, steps=2)
    assert details(report)["state"] == "2 leaves, 2 steps"
    assert {row.collection for row in report.rows} == {"params", "batch_stats"}
    row = next(row for row in report.rows if row.path == ("Dense_0", "kernel"))
    assert row == testing.Row(
        "params", ("Dense_0", "kernel"), "net/Dense_0", "kernel", (4, 3), "float32"
    )
    assert "batch_stats/BatchNorm_0/mean" in repr(report)
    assert "net/batch_stats/BatchNorm_0/mean" in repr(report)


def test_integers():
    ids = jnp.array([[1, 2], [0, 3]])
    assert details(testing.check(nn.Embed(4, 3), ids))["gradients"] == "1 leaf"


def test_no_params():
    report = testing.check(nn.Dropout(0.5, deterministic=False), X)
    assert details(report)["init"] == "0 leaves"
    assert report.rows == ()


@pytest.mark.parametrize("rngs", [KEY, {"params": KEY, "dropout": KEY, "noise": KEY}])
def test_rngs(rngs):
    class Noise(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(4)(x) + jax.random.normal(self.make_rng("noise"), x.shape)

    testing.check(Noise(), X, rngs=rngs)


def test_outputs_that_are_no_arrays():
    class Words(nn.Module):
        @nn.compact
        def __call__(self, x):
            return {"y": nn.Dense(3)(x), "text": "a", "number": 1.0}

    assert details(testing.check(Words(), X))["outputs"] == "3 arrays"


def test_method_and_name():
    report = testing.check(Net(), X, method=lambda net, x: net(x, False), name="a/~/b")
    assert report.name == "a/~/b"
    assert report.rows[0].haiku_module.startswith("a/~/b/")


def test_variables_whole_or_in_part():
    made = Net().init(KEY, X, False)
    stats = {"BatchNorm_0": {"mean": np.full(3, 2.0, np.float32)}}
    for given in (made, {"batch_stats": stats}, {"params": made["params"]}):
        testing.check(Net(), X, variables=given)
    bound = Net().bind({c: made[c] for c in ("params", "batch_stats")})
    testing.check(bound, X)


def test_variables_that_do_not_fit_fail():
    wrong = {"params": {"bias": jnp.ones([7])}}
    with pytest.raises(Exception, match=r"bias.*\(7,\)|7"):
        testing.check(nn.Dense(3), X, variables=wrong)


def test_what_has_no_gradient_in_flax_is_skipped():
    class Loop(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(4)(x)
            return jax.lax.while_loop(lambda x: x.sum() < 9.0, lambda x: x + 1.0, x)

    report = testing.check(Loop(), X)
    (gradients,) = (r for r in report.results if r.check == "gradients")
    assert report.ok
    assert gradients.ok is None
    assert gradients.detail.startswith("Flax raises ValueError: Reverse-mode")
    assert "skipped" in repr(report)


def test_errors_of_flax_come_through():
    with pytest.raises(TypeError, match="missing 1 required positional"):
        testing.check(nn.Dense(3))
    with pytest.raises(hk_bridge.ModuleTypeError, match="the class Dense"):
        testing.check(nn.Dense, X)


def test_html():
    html = testing.check(nn.Dense(3), X)._repr_html_()
    assert "<td>params/kernel</td><td>dense/kernel</td><td>[4, 3]</td>" in html


# That it can fail.


def test_an_output_by_a_global_counter_fails():
    counter = itertools.count()

    class Counter(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x) + float(next(counter))

    found = failed(Counter(), X)
    assert "other bits" in found["outputs"]
    assert "apart at most" in found["outputs"]


def test_initial_values_by_a_global_counter_fail():
    counter = itertools.count()

    class Counter(nn.Module):
        @nn.compact
        def __call__(self, x):
            init = nn.initializers.constant(float(next(counter)))
            return nn.Dense(3, kernel_init=init)(x)

    found = failed(Counter(), X)
    assert found["init"].startswith("['params']['Dense_0']['kernel']: other bits")


def patched(monkeypatch, change):
    """The bridge, with what `apply` gives changed by `change(net, output)`."""
    plain = hk_bridge.FlaxModule.__call__

    class Changed(hk_bridge.FlaxModule):
        def __call__(self, *args, **kwargs):
            return change(self, plain(self, *args, **kwargs))

    monkeypatch.setattr(testing, "FlaxModule", Changed)


def test_one_bit_fails(monkeypatch):
    patched(monkeypatch, lambda net, y: jnp.nextafter(y, jnp.inf))
    found = failed(nn.Dense(3), X)
    assert set(found) == {"outputs", "gradients", "program"}
    assert found["program"] == "4 equations in Haiku, 3 in Flax"


def test_another_dtype_fails(monkeypatch):
    patched(monkeypatch, lambda net, y: y.astype(jnp.bfloat16))
    expected = "the output: bfloat16[2,3] in Haiku, float32[2,3] in Flax"
    assert failed(nn.Dense(3), X)["outputs"] == expected


def test_another_structure_fails(monkeypatch):
    patched(monkeypatch, lambda net, y: (y,))
    assert failed(nn.Dense(3), X)["outputs"].startswith("structure: ")


def test_another_gradient_fails(monkeypatch):
    patched(monkeypatch, lambda net, y: jax.lax.stop_gradient(y))
    found = failed(nn.Dense(3), X)
    assert set(found) == {"gradients", "program"}
    assert "stop_gradient" in found["program"] or "equations" in found["program"]


def test_state_that_stands_still_fails(monkeypatch):
    from hk_bridge import _haiku

    monkeypatch.setattr(_haiku, "set_state", lambda *args: None)
    found = failed(Net(), X)
    assert found["state"].startswith("step 1: ['batch_stats']['BatchNorm_0']['mean']")
    assert "outputs" not in found


def test_an_error_of_the_bridge_fails(monkeypatch):
    def refuse(net, y):
        raise KeyError("gone")

    patched(monkeypatch, refuse)
    found = failed(nn.Dense(3), X)
    assert set(found) == {"init", "outputs", "gradients", "state", "program"}
    assert found["outputs"].startswith("KeyError: 'gone'")
