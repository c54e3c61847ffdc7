"""Errors of creators and getters at apply, for a parameter that Haiku does not hold."""

import flax.errors
import flax.linen as nn
import haiku as hk
from hand import KEY
from hand import X
from hand import keep
import jax
import jax.numpy as jnp
import pytest

from hk_bridge import FlaxModule

MISSING = (flax.errors.ScopeParamNotFoundError, flax.errors.ScopeCollectionNotFound)


class Broken(Exception):
    pass


class Draws(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x * self.param("w", nn.initializers.normal(), (1, 4))


class DrawsByHand(hk.Module):
    def __call__(self, x):
        return x * hk.get_parameter("w", (1, 4), init=hk.initializers.RandomNormal())


def creates(make, shape, dtype, init, context):
    return make(shape, dtype, init)


def fails_before_it(make, shape, dtype, init, context):
    raise Broken("before")


def fails_after_it(make, shape, dtype, init, context):
    init(shape, dtype)
    raise Broken("after")


def fails_instead(make, shape, dtype, init, context):
    try:
        return make(shape, dtype, init)
    except Exception as error:
        raise Broken("instead") from error


def fails_in_haikus_words(make, shape, dtype, init, context):
    make(shape, dtype, init)
    raise ValueError("All parameters must be created as part of `init`.")


def lacks_another(make, shape, dtype, init, context):
    if context.name == "other":
        return make(shape, dtype, init)
    make(shape, dtype, init)
    return hk.get_parameter("other", shape, dtype, init)


def keeps_elsewhere(make, shape, dtype, init, context):
    init(shape, dtype)
    return hk.DO_NOT_STORE


def fails_to_get(get, value, context):
    raise Broken("get")


HOOKS = {
    "before": (fails_before_it, keep, KEY),
    "before, without a key": (fails_before_it, keep, None),
    "after": (fails_after_it, keep, KEY),
    "instead": (fails_instead, keep, None),
    "in Haiku's words": (fails_in_haikus_words, keep, KEY),
    "of another parameter": (lacks_another, keep, KEY),
    "of a getter": (keeps_elsewhere, fails_to_get, KEY),
}


def error_of(make, hooks, params):
    creator, getter, key = hooks

    def forward(x):
        with hk.custom_creator(creator), hk.custom_getter(getter):
            return make()(x)

    try:
        hk.transform(forward).apply(params, key, X)
    except Exception as error:
        return type(error), str(error)
    raise AssertionError("No error came.")


@pytest.mark.parametrize("params", [{}, {"net": {}}], ids=["none", "empty"])
@pytest.mark.parametrize("hooks", HOOKS)
def test_their_own_errors_come_through(hooks, params):
    ours = error_of(lambda: FlaxModule(Draws(), name="net"), HOOKS[hooks], params)
    theirs = error_of(lambda: DrawsByHand("net"), HOOKS[hooks], params)
    assert ours == theirs


@pytest.mark.parametrize("hooks", ["before", "instead"])
def test_their_own_errors_come_out_of_lifted_code(hooks):
    make = lambda: FlaxModule(nn.remat(Draws)(), name="net")
    kind, _ = error_of(make, HOOKS[hooks], {"net": {}})
    assert kind is Broken


@pytest.mark.parametrize("key", [KEY, None], ids=["key", "no key"])
@pytest.mark.parametrize("lift", [lambda cls: cls, nn.remat], ids=["plain", "remat"])
def test_what_is_missing_is_missing_in_flaxs_words(lift, key):
    make = lambda: FlaxModule(lift(Draws)(), name="net")
    kind, _ = error_of(make, (creates, keep, key), {"net": {}})
    assert kind in MISSING


def test_an_initialisers_own_error_means_missing():
    """Flax would not have run it."""

    class Fails(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * self.param("w", self.init_w, (1, 4))

        def init_w(self, key, shape):
            if not isinstance(key, jax.core.Tracer):  # not by shapes alone
                raise ZeroDivisionError
            return jnp.ones(shape)

    make = lambda: FlaxModule(Fails(), name="net")
    kind, _ = error_of(make, (creates, keep, KEY), {"net": {}})
    assert kind in MISSING
