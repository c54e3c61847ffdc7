"""What is refused of NNX modules, and what the errors say."""

from catalogue import array
from catalogue_nnx_models import Mlp
from flax import errors
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from replay import pure

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import ModuleTypeError
from hk_bridge import VariablesError
from hk_bridge.testing import check

KEY = jax.random.key(0)
X = array(2, 4)


def linear():
    return nnx.Linear(4, 3, rngs=nnx.Rngs(0))


def transform(module, **options):
    forward = lambda x: FlaxModule(module, name="net", **options)(x)
    return hk.transform_with_state(forward)


def notes(raised):
    return "\n".join(getattr(raised.value, "__notes__", ()))


def test_a_class_is_refused():
    with pytest.raises(ModuleTypeError, match="but got the class Linear"):
        transform(nnx.Linear).init(KEY, X)


@pytest.mark.parametrize("value", [nnx.Rngs(0), nnx.Param(1.0), nnx.state(linear())])
def test_other_things_of_nnx_are_refused(value):
    with pytest.raises(ModuleTypeError):
        transform(value).init(KEY, X)


def test_a_missing_parameter():
    f = transform(linear())
    params, state = f.init(None, X)
    del params["net"]["bias"]
    with pytest.raises(errors.ScopeParamNotFoundError, match="bias") as raised:
        f.apply(params, state, None, X)
    assert "net" in notes(raised)
    with pytest.raises(errors.ScopeParamNotFoundError) as raised:
        f.apply({}, state, None, X)
    assert "net" in notes(raised)


def test_a_missing_state():
    f = transform(nnx.BatchNorm(4, rngs=nnx.Rngs(0)))
    params, state = f.init(None, X)
    del state["net/batch_stats"]["mean"]
    with pytest.raises(errors.ScopeVariableNotFoundError, match="mean") as raised:
        f.apply(params, state, None, X)
    assert "net" in notes(raised)


def test_a_wrong_shape():
    f = transform(linear())
    params, state = f.init(None, X)
    params["net"]["bias"] = jnp.ones(5)
    with pytest.raises(errors.ScopeParamShapeError, match="bias") as raised:
        f.apply(params, state, None, X)
    assert "net" in notes(raised)


@pytest.mark.parametrize(
    ("variables", "match"),
    [
        ({"params": {"bias": jnp.ones(5)}}, "bias"),
        ([], "variables"),
        ({"params": jnp.ones(3)}, "params"),
        ({"params": {"bias": jax.ShapeDtypeStruct((3,), jnp.float32)}}, "bias"),
    ],
)
def test_variables_that_do_not_fit(variables, match):
    with pytest.raises(VariablesError, match=match):
        transform(linear(), variables=variables).init(None, X)


def test_abstract_instances_need_variables():
    abstract = nnx.eval_shape(lambda: Mlp(4, 8, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(VariablesError, match="variables=") as raised:
        transform(abstract).init(KEY, X)
    assert "linear1" in str(raised.value) or "bn" in str(raised.value)
    part = {"params": pure(Mlp(4, 8, 3, rngs=nnx.Rngs(0)), nnx.Param)}
    with pytest.raises(VariablesError, match="batch_stats"):
        transform(abstract, variables=part).init(KEY, X)


def test_variables_before_a_call():
    def forward():
        return FlaxModule(linear(), name="net").variables

    with pytest.raises(hk_bridge.NotInitializedError):
        hk.transform(forward).init(None)


def test_an_unknown_method():
    with pytest.raises(AttributeError, match="encode"):
        hk.transform(lambda: FlaxModule(linear())(X, method="encode")).init(None)


def test_a_module_without_a_call():
    class Silent(nnx.Module):
        def read(self):
            return 1

    with pytest.raises(TypeError, match="Silent"):
        hk.transform(lambda: FlaxModule(Silent())()).init(None)
    f = hk.transform(lambda: FlaxModule(Silent())(method="read"))
    assert f.apply(f.init(None), None) == 1


def test_errors_of_the_module_are_its_own():
    """With a note that tells which module of Haiku it was."""
    with pytest.raises(TypeError) as raised:
        transform(linear()).init(None, array(2, 5))
    assert "net" in notes(raised)


def test_check_says_what_differs():
    """A call that is not a function of its values."""
    calls = []

    class Fickle(nnx.Module):
        def __init__(self):
            self.w = nnx.Param(jnp.ones([]))

        def __call__(self, x):
            calls.append(None)
            return x * self.w[...] * float(len(calls))

    with pytest.raises(AssertionError) as raised:
        check(Fickle(), X)
    assert not raised.value.args[0].ok
    with pytest.raises(TypeError):
        check(nnx.Linear, X)


def test_a_generator_is_refused():
    """It would write into its copy after the call, and nobody would see it."""

    class Walking(nnx.Module):
        def __init__(self):
            self.count = nnx.BatchStat(jnp.zeros([]))

        def __call__(self, x):
            self.count[...] += 1
            yield x

    with pytest.raises(ModuleTypeError, match=r"list\(self.__call__\(...\)\)"):
        transform(Walking()).init(None, X)
