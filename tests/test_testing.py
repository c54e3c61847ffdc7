"""`hk_bridge.testing.check`: what it passes, and that it can fail."""

from collections.abc import Callable
import itertools

from catalogue import KEY
import flax.linen as nn
import haiku as hk
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


class Thing:
    """Has no equality."""


OUTPUTS = {
    "numbers": lambda: (float("nan"), -0.0, complex("nan"), True, 2**80),
    "objects": lambda: Thing(),
    "functions": lambda: lambda x: x,
    "types": lambda: (jnp.float32, np.float32, jnp.dtype("int32"), nn.Dense(2)),
    "arrays of objects": lambda: np.array(["a", None, 1.5], object),
    "texts": lambda: (np.array(["a", "b"]), np.str_("c"), b"d"),
    "keys": lambda: (jax.random.key(1), jax.random.key(1, impl="unsafe_rbg")),
    "nothing": lambda: (None, (), {}),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_odd_kinds(name):
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x), OUTPUTS[name]()

    report = testing.check(Odd(), X)
    assert [result.ok for result in report.results] == [True] * 5


@pytest.mark.parametrize(
    ("one", "other", "which"),
    [
        (0.0, -0.0, {"outputs", "program"}),
        (np.array(["a", 1], object), np.array(["a", 2], object),
         {"outputs", "program"}),
        (jax.random.key(0, impl="rbg"), jax.random.key(0, impl="unsafe_rbg"),
         {"outputs", "program"}),
    ],
    ids=["zeros", "objects", "keys"],
)  # fmt: skip
def test_another_odd_output_fails(monkeypatch, one, other, which):
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x), one

    patched(monkeypatch, lambda net, y: (y[0], other))
    assert set(failed(Odd(), X)) == which


def test_nothing_leaks_from_a_check():
    with jax.checking_leaks():
        report = testing.check(Net(), X)
    assert [result.ok for result in report.results] == [True] * 5


def test_variables_that_are_no_arrays():
    class Text(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("notes", "text", lambda: "a")
            return nn.Dense(3)(x)

    report = testing.check(Text(), X, name="net")
    assert all(result.ok for result in report.results)
    row = testing.Row("notes", ("text",), "net/notes", "text", None, None)
    assert row in report.rows


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


class Branches(nn.Module):
    """Looks at the value of what it is given."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x if x.sum() > 0.0 else -x)


@pytest.mark.parametrize("x", [X, -np.ones([2, 4], np.float32)], ids=["jax", "numpy"])
def test_what_branches_on_values(x):
    """JAX cannot trace it but for a NumPy array, which then is a constant."""
    report = testing.check(Branches(), x)
    (program,) = (r for r in report.results if r.check == "program")
    assert report.ok
    if isinstance(x, jax.Array):
        assert program.ok is None
        assert program.detail.startswith("Flax raises TracerBoolConversionError: ")
    else:
        assert program.ok


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


class Scale(nn.Module):
    """A complex parameter, and what it is to give."""

    output: Callable

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.normal(), (4,), jnp.complex64)
        return self.output(x * scale[None])


def gradients(report):
    (result,) = (r for r in report.results if r.check == "gradients")
    return result


def test_complex_gradients():
    report = testing.check(Scale(lambda y: y), X.astype(jnp.complex64))
    assert gradients(report) == testing.Result("gradients", True, "1 leaf")


@jax.numpy_dtype_promotion("standard")
@pytest.mark.parametrize("change", [jnp.conj, jax.lax.stop_gradient])
def test_another_complex_gradient_fails(monkeypatch, change):
    patched(monkeypatch, lambda net, y: change(y))
    found = failed(Scale(lambda y: y), X.astype(jnp.complex64))
    assert "gradients" in found


@pytest.mark.parametrize(
    ("module", "detail"),
    [
        (nn.Dropout(0.5, deterministic=True), "no parameters are floats"),
        (nn.Embed(4, 3, param_dtype=jnp.int32, embedding_init=nn.initializers.ones),
         "no parameters are floats"),
        (nn.Sequential([nn.Dense(3), jnp.argmax]), "no outputs are floats"),
    ],
    ids=["none", "integers", "argmax"],
)  # fmt: skip
def test_gradients_of_nothing_are_skipped(module, detail):
    x = jnp.array([[1, 2]]) if isinstance(module, nn.Embed) else X
    report = testing.check(module, x)
    assert report.ok
    assert gradients(report) == testing.Result("gradients", None, detail)


class Keywords(nn.Module):
    """Shares all keywords with `check`."""

    @nn.compact
    def __call__(self, x, steps=1, name="a", variables=2, rngs=3, method="b"):
        assert steps in (1, 5)
        return nn.Dense(steps)(x)


SHARED = {
    "steps": 5,
    "name": "b",
    "variables": {},
    "rngs": KEY,
    "method": lambda m, x, method: m(x),
}


@pytest.mark.parametrize("keyword", SHARED)
def test_a_keyword_of_check_and_of_the_module_is_refused(keyword):
    with pytest.raises(TypeError) as caught:
        testing.check(Keywords(), X, **{keyword: SHARED[keyword]})
    assert str(caught.value) == (
        f"{keyword}= is a keyword of check and of what it is to call of Keywords. For "
        f"the module, write check(module, x, method=lambda m, x: m(x, {keyword}=...)); "
        f"for check, write check(module, x, {keyword}=..., method=lambda m, x: m(x))."
    )


def test_a_shared_keyword_can_be_given_to_either():
    report = testing.check(Keywords(), X, method=lambda m, x: m(x, steps=5))
    assert report.rows[0].shape == (5,)
    assert details(report)["state"] == "0 leaves, 3 steps"
    report = testing.check(Keywords(), X, steps=2, method=lambda m, x: m(x))
    assert report.rows[0].shape == (1,)
    assert details(report)["state"] == "0 leaves, 2 steps"


@pytest.mark.parametrize("name", ["1bad", "a/1bad", "", "a/", "a b"])
def test_a_name_that_haiku_cannot_have(name):
    with pytest.raises(ValueError, match=rf"'{name}' is not a valid module name"):
        testing.check(nn.Dense(3), X, name=name)


@pytest.mark.parametrize("name", ["net", "outer/~/net", "outer/~encode/net"])
def test_full_names(name):
    assert testing.check(nn.Dense(3), X, name=name).rows[0].haiku_module == name


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
    start = "apply: nextafter(float32[2,3], float32[]) -> float32[2,3] at "
    assert found["program"].startswith(start)
    assert found["program"].endswith(" is in Haiku alone, not in Flax")


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
    assert "stop_gradient" in found["program"]


def test_state_that_stands_still_fails(monkeypatch):
    from hk_bridge import _haiku

    monkeypatch.setattr(_haiku.Ledger, "set_state", lambda *args: None)
    found = failed(Net(), X)
    assert found["state"].startswith("step 1: ['batch_stats']['BatchNorm_0']['mean']")
    assert "outputs" not in found


@pytest.mark.parametrize("module", [nn.Dense(3), Net()], ids=["Dense", "Net"])
def test_a_leaf_of_no_variable_fails(monkeypatch, module):
    def leak(net, y):
        hk.set_state("leak", jnp.zeros([]))
        return y

    patched(monkeypatch, leak)
    found = failed(module, X, name="net")
    expected = "Haiku state holds what is no variable: net/leak"
    assert found["init"] == expected
    assert found["state"] == f"step 1: {expected}"


def test_a_parameter_of_no_variable_fails(monkeypatch):
    def leak(net, y):
        return y + hk.Bias(name=hk.experimental.force_name("other"))(y)

    patched(monkeypatch, leak)
    expected = "Haiku params holds what is no variable: other/b"
    assert failed(nn.Dense(3), X)["init"] == expected


def test_an_error_of_the_bridge_fails(monkeypatch):
    def refuse(net, y):
        raise KeyError("gone")

    patched(monkeypatch, refuse)
    found = failed(nn.Dense(3), X)
    assert set(found) == {"init", "outputs", "gradients", "state", "program"}
    assert found["outputs"].startswith("KeyError: 'gone'")
