"""`mutable=`, `net.variables`, threads, leaks: what the caller has."""

from concurrent.futures import ThreadPoolExecutor

import flax.errors
import flax.linen as nn
import haiku as hk
import jax
import pytest
from recorded import KEY
from recorded import LIFTS
from recorded import NAME
from recorded import PARAMS_KEY
from recorded import Body
from recorded import Layer
from recorded import X
from recorded import bridged
from recorded import copied
from recorded import listening

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical


@pytest.mark.parametrize(
    "mutable",
    [False, True, "stats", [], ["intermediates"], "params", nn.DenyList("stats")],
    ids=str,
)
@pytest.mark.parametrize("lift", ["plain", "remat", "jit", "vmap", "jit_remat"])
def test_what_the_caller_lets_change(lift, mutable):
    module = LIFTS[lift](Body, Layer)()
    variables = module.init(PARAMS_KEY, X)
    put = []

    def forward():
        with listening(put):
            return FlaxModule(module, name=NAME)(X, mutable=mutable)

    f = hk.transform_with_state(forward)
    params, state = hk_bridge.to_haiku(variables, name=NAME)
    try:
        expected = module.apply(variables, X, mutable=mutable)
    except flax.errors.FlaxError as error:
        with pytest.raises(type(error)):
            f.apply(params, state, None)
        return
    y, new = f.apply(params, state, None)
    assert_identical(y, expected)
    changed = expected[1].get("stats") if mutable is not False else None
    assert_identical(new["net/stats"], changed or variables["stats"])
    assert put == (["w"] if changed else [])


@pytest.mark.parametrize("lift", ["plain", "remat", "jit", "vmap"])
def test_the_variables_of_a_net_are_the_callers(lift):
    module = LIFTS[lift](Body, Layer)()
    seen = []

    def forward():
        net = FlaxModule(module, name=NAME)
        net(X, rngs=PARAMS_KEY)
        variables = net.variables
        seen.append(copied(variables))
        variables["stats"].clear()
        return net(X, rngs=PARAMS_KEY)

    f = hk.transform_with_state(forward)
    params, state = f.init(None)
    f.apply(params, state, None)
    native = module.init(PARAMS_KEY, X)
    _, changed = module.apply(native, X, mutable=["stats"])
    assert_identical(seen, [native, {**native, **changed}])
    assert_identical(hk_bridge.to_flax(params, state, name=NAME), native)


class Both(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.jit(Body)()(nn.remat(Body)()(x))


def test_threads_do_not_see_each_other():
    f = hk.transform_with_state(lambda x: FlaxModule(Both(), name=NAME)(x))
    params, state = f.init(KEY, X)
    inputs = [X + i for i in range(8)]
    expected = [f.apply(params, state, None, x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        calls = pool.map(lambda x: f.apply(params, state, None, x), inputs)
        assert_identical(list(calls), expected)
        for start in pool.map(lambda x: f.init(KEY, x), inputs):
            assert_identical(start, (params, state))


@pytest.mark.parametrize("lift", ["plain", "remat", "jit", "vmap", "jit_remat"])
def test_no_tracer_leaks(lift):
    f = bridged(LIFTS[lift](Body, Layer), X)
    with jax.checking_leaks():
        params, state = jax.jit(f.init)(KEY)
        loss = lambda params: f.apply(params, state, None)[0].sum()
        jax.jit(jax.grad(loss))(params)
        f.apply(params, state, None)
