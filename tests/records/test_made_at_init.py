"""What is made and written at init: setters, None, classes with an own `init`."""

import flax.errors
import flax.linen as nn
import haiku as hk
import jax.numpy as jnp
import pytest
from recorded import KEY
from recorded import LIFTS
from recorded import NAME
from recorded import PARAMS_KEY
from recorded import X
from recorded import bridged
from recorded import listening

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical


class Puts(nn.Module):
    """Writes a variable that nothing declares."""

    @nn.compact
    def __call__(self, x):
        known = self.has_variable("stats", "w")
        w = self.get_variable("stats", "w") + 1 if known else jnp.ones([])
        self.put_variable("stats", "w", w)
        return x


class PutsInHaiku(hk.Module):
    def __call__(self, x):
        known = not hk.running_init()
        hk.set_state("w", hk.get_state("w") + 1 if known else jnp.ones([]))
        return x


SETTERS = {
    "doubling": lambda put, value, context: put(value * 2),
    "refusing": lambda put, value, context: hk.experimental.DO_NOT_STORE,
}


@pytest.mark.parametrize("setter", SETTERS)
@pytest.mark.parametrize("lift", ["plain", "remat", "jit"])
def test_a_setter_is_asked_at_init(lift, setter):
    cls = LIFTS[lift](Puts, None)

    def put_by(build):
        asked = []

        def forward():
            with hk.custom_setter(SETTERS[setter]), listening(asked):
                return build()(X)

        f = hk.transform_with_state(forward)
        params, state = f.init(KEY)
        if state:
            _, state = f.apply(params, state, None)
        return asked, [jnp.asarray(bundle["w"]) for bundle in state.values()]

    ours = put_by(lambda: FlaxModule(cls(), name=NAME))
    theirs = put_by(lambda: PutsInHaiku(name=NAME))
    assert_identical(ours, theirs)


# Parameters: None, missing, with a class that has an `init` of its own.


class HasNone(nn.Module):
    @nn.compact
    def __call__(self, x):
        assert self.param("none", lambda key: None) is None
        return nn.Dense(4)(x)


@pytest.mark.parametrize("hooked", [False, True])
@pytest.mark.parametrize("lift", ["plain", "remat", "jit", "vmap"])
def test_a_parameter_that_is_none(lift, hooked):
    module = LIFTS[lift](HasNone, None)()
    variables = module.init(PARAMS_KEY, X)

    def forward():
        net = FlaxModule(module, name=NAME)
        if not hooked:
            return net(X, rngs=PARAMS_KEY)
        creator = lambda make, shape, dtype, init, context: make(shape, dtype, init)
        getter = lambda get, value, context: get(value)
        with hk.custom_creator(creator), hk.custom_getter(getter):
            return net(X, rngs=PARAMS_KEY)

    f = hk.transform(forward)
    params = f.init(None)
    assert_identical(hk_bridge.to_flax(params, {}, name=NAME), variables)
    assert_identical(f.apply(params, None), module.apply(variables, X))


class OwnInit(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x)

    def refuse(self, *args, **kwargs):
        raise AssertionError("Nobody calls this.")

    init = init_with_output = apply = bind = refuse


def test_one_key_with_a_class_that_overrides_init_and_apply():
    class Plain(nn.Module):
        __call__ = OwnInit.__call__

    variables = Plain().init(KEY, X)
    f = hk.transform(lambda: FlaxModule(OwnInit(), name=NAME)(X, rngs=KEY))
    params = f.init(None)
    assert_identical(hk_bridge.to_flax(params, {}, name=NAME), variables)
    assert_identical(f.apply(params, None), Plain().apply(variables, X))


@pytest.mark.parametrize("params", [{}, {NAME: {}}, {NAME: {"other": jnp.ones([4])}}])
@pytest.mark.parametrize("lift", ["plain", "remat", "jit"])
def test_no_initialiser_runs_for_a_missing_parameter(lift, params):
    ran = []

    class Scaled(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * self.param("scale", lambda key: ran.append(key) or jnp.ones([1]))

    f = bridged(LIFTS[lift](Scaled, None), X)
    missing = (flax.errors.ScopeParamNotFoundError, flax.errors.ScopeCollectionNotFound)
    with pytest.raises(missing):
        f.apply(params, {}, KEY)
    assert not ran
