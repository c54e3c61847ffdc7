"""Norms of NNX that write the parameters of the layer inside, at each call."""

from catalogue import array
from flax import errors
from flax import nnx
import haiku as hk
import jax
import pytest

from hk_bridge import FlaxModule
from hk_bridge import to_flax
from hk_bridge import to_haiku
from hk_bridge import wrap
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)


def linear(rngs):
    return nnx.Linear(4, 3, rngs=rngs)


NORMS = {
    "weight": lambda: nnx.WeightNorm(linear(nnx.Rngs(0)), rngs=nnx.Rngs(1)),
    "spectral": lambda: nnx.SpectralNorm(linear(nnx.Rngs(0)), rngs=nnx.Rngs(1)),
}
norms = pytest.mark.parametrize("make", NORMS.values(), ids=NORMS)


def transform(module, **options):
    return hk.transform_with_state(
        lambda x: FlaxModule(module, name="net")(x, **options)
    )


@norms
def test_parameters_are_not_written(make):
    f = transform(make())
    params, state = f.init(None, X)
    assert "net/layer_instance" in params  # and scales, in newer versions
    with pytest.raises(errors.ModifyScopeVariableError, match="kernel") as raised:
        f.apply(params, state, None, X)
    assert "Add 'params' to mutable=" in "\n".join(raised.value.__notes__)


@norms
def test_written_parameters_come_out(make):
    module = make()
    f = transform(module, mutable=["params", "batch_stats"])
    params, state = f.init(None, X)
    copy = nnx.clone(module)
    for _ in range(2):
        (y, mutated), state = f.apply(params, state, None, X)
        assert_identical(y, copy(X))
        layer = mutated["params"]["layer_instance"]
        assert_identical(layer["kernel"], copy.layer_instance.kernel[...])
        params, _ = to_haiku({"params": mutated["params"]}, name="net")
    stats = to_flax({}, state, name="net").get("batch_stats", {})
    held = getattr(copy, "batch_stats", {})
    leaves = [v[...] for _, v in sorted(held.items())]
    assert_identical(jax.tree.leaves(stats), leaves)


@norms
def test_parameters_stay_without_mutable_state(make):
    """What is written in a call is seen in that call, and by no later one."""
    f = transform(make(), mutable=["params", "batch_stats"])
    params, state = f.init(None, X)
    one, two = (f.apply(params, state, None, X)[0] for _ in range(2))
    assert_identical(one, two)


def test_a_class_with_a_norm_is_wrapped():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.WeightNorm(linear(rngs), rngs=rngs)

        def __call__(self, x):
            return self.norm(x)

    f = hk.transform(lambda x: wrap(Net)(name="net")(x, mutable=["params"]))
    params = f.init(KEY, X)
    y, mutated = f.apply(params, None, X)
    native = Net(nnx.Rngs(params=next(hk.PRNGSequence(KEY))))
    assert_identical(y, native(X))
    kernel = native.norm.layer_instance.kernel[...]
    assert_identical(mutated["params"]["norm"]["layer_instance"]["kernel"], kernel)
