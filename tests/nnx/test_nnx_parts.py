"""Parts of a wrapped NNX class, by its attributes; a stream that is not there."""

from catalogue import array
from flax import errors
from flax import nnx
import haiku as hk
import jax
import pytest
from replay import keys_of
from replay import pure

from hk_bridge import FlaxModule
from hk_bridge import StateStructureError
from hk_bridge import wrap
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)


def test_modules_in_lists_have_values():
    class Rows(nnx.Module):
        def __init__(self, *, rngs):
            self.rows = nnx.data([nnx.Linear(4, 3, rngs=rngs), {"a": None}])
            self.sizes = [3, 4]

        def __call__(self, x):
            return self.rows[0](x)

    net = wrap(Rows)

    def forward(x):
        rows = net(name="net")
        rows(x)
        return rows.rows[0].kernel[...] + 0.0, rows.sizes

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    (kernel, sizes), _ = f.apply(params, state, None, X)
    assert_identical(kernel, params["net/rows/%i0"]["kernel"])
    assert sizes == [3, 4]


class Parts(nnx.Module):
    def __init__(self, *, rngs):
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(x))


def parts(call):
    net = wrap(Parts)

    def forward(x):
        made = net(name="net")
        made(x)
        return call(made, x)

    return hk.transform_with_state(forward)


def test_parts_that_only_compute_may_be_called():
    f = parts(lambda net, x: net.head(net.norm(x, use_running_average=True)))
    params, state = f.init(KEY, X)
    y, after = f.apply(params, state, None, X)
    module = Parts(rngs=nnx.Rngs(params=keys_of(KEY, 1)[0]))
    module(X)
    assert_identical(y, module.head(module.norm(X, use_running_average=True)))
    assert_identical(after["net/batch_stats/norm"], pure(module.norm, nnx.BatchStat))


def test_parts_that_write_are_an_error():
    f = parts(lambda net, x: net.norm(x))
    with pytest.raises(StateStructureError, match="BatchStat was written"):
        f.init(KEY, X)
    f = parts(lambda net, x: net.norm.mean.set_value(x[0]))
    with pytest.raises(StateStructureError, match="call it by its owner"):
        f.init(KEY, X)


def test_a_stream_that_rngs_lack_is_told():
    module = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    f = hk.transform(lambda x: FlaxModule(module)(x, rngs={"dropout": KEY}))
    with pytest.raises(errors.InvalidRngError, match="default") as caught:
        f.apply({}, None, X)
    assert caught.value.__notes__[0].startswith("rngs= of this call has 'dropout'.")
