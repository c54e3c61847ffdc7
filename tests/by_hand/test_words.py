"""What users are told, and what they may say: notes, keywords, numbers."""

import contextlib
from typing import Any

import flax
import flax.linen as nn
import haiku as hk
from hand import KEY
from hand import LIFTS
from hand import Scale
from hand import X
from hand import assert_equal
from hand import keep
from hand import keyed
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hk_bridge import FlaxModule
from hk_bridge import wrap


class Sows(nn.Module):
    """Sows into the collection that its sibling keeps a variable in."""

    @nn.compact
    def __call__(self, x, sow=True):
        x = Scale(name="scale")(x)
        if sow:
            Sower(name="sower")(x)
        return x


class Sower(nn.Module):
    @nn.compact
    def __call__(self, x):
        self.sow("counts", "seen", x)


@pytest.mark.parametrize("lift", LIFTS)
def test_sowing_into_a_collection_that_holds_variables(lift):
    """The error, or its advice, names who sows, and says that it makes it transient."""
    cls = LIFTS[lift](Sows) if lift == "plain" else LIFTS[lift](Sows, static_argnums=2)
    f = hk.transform_with_state(
        lambda x, sow=True: FlaxModule(cls(), name="net")(x, sow)
    )
    params, state = f.init(KEY, X, False)
    with pytest.raises(Exception, match="counts") as caught:
        f.apply(params, state, None, X, True)
    error = caught.value
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    assert "sower" in text
    assert "transient" in text


@pytest.mark.parametrize("lift", LIFTS)
def test_what_is_sown_beside_a_variable_at_init_is_explained_at_apply(lift):
    cls = LIFTS[lift](Sows) if lift == "plain" else LIFTS[lift](Sows, static_argnums=2)
    f = hk.transform_with_state(lambda x: FlaxModule(cls(), name="net")(x, True))
    params, state = f.init(KEY, X)
    assert not state
    with pytest.raises(Exception, match="counts") as caught:
        f.apply(params, state, None, X)
    notes = " ".join(caught.value.__notes__)
    assert "'sower' sows into 'counts'" in notes
    assert "transient" in notes
    assert "f.init returned" not in notes


class Mutable(nn.Module):
    @nn.compact
    def __call__(self, x, mutable="unset", rngs="unset", method="unset"):
        self.variable("counts", "n", jnp.ones, ())
        return x if mutable == "unset" else x * mutable

    def run(self, x, mutable=3.0):
        return self(x, mutable)


@pytest.mark.parametrize("how", ["wrapped method", "function"])
def test_a_users_own_keyword_called_mutable(how):
    def forward(x):
        if how == "function":
            net = FlaxModule(Mutable(), name="net")
            return net(x, method=lambda m, x: m.run(x, mutable=2.0))
        return wrap(Mutable)(name="net").run(x, mutable=2.0)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    y, after = f.apply(params, state, None, X)
    assert_equal(y, X * 2)
    assert_equal(after, state)


class Scalar(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x):
        p = self.param("p", keyed(jnp.zeros), (), self.dtype)
        s = self.variable("kept", "s", jnp.zeros, (), self.dtype)
        return p, s.value


SCALARS = {
    "float": (2.5, jnp.float32),
    "int": (3, jnp.int32),
    "bool": (True, jnp.bool_),
    "np.float32": (np.float32(2.5), jnp.float32),
    "np.int32": (np.int32(3), jnp.int32),
    "0-d array": (np.array(2.5, np.float32), jnp.float32),
    "complex": (1 + 2j, jnp.complex64),
}


@pytest.mark.parametrize("getter", [False, True], ids=["plain", "under a getter"])
@pytest.mark.parametrize("given", SCALARS)
def test_numbers_are_given_for_scalars(given, getter):
    value, dtype = SCALARS[given]
    variables = {"params": {"p": value}, "kept": {"s": value}}
    module = Scalar(dtype)

    def forward(x):
        with hk.custom_getter(keep, state=True) if getter else contextlib.nullcontext():
            return FlaxModule(module, variables=variables, name="net")(x)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    assert_equal(np.asarray(params["net"]["p"]), np.asarray(value))
    assert_equal(np.asarray(state["net/kept"]["s"]), np.asarray(value))
    y, after = f.apply(params, state, None, X)
    theirs = module.apply(variables, X)
    assert_equal(jax.tree.map(np.asarray, y), jax.tree.map(np.asarray, theirs))
    assert_equal(after, state)


@pytest.mark.parametrize("phase", ["init", "apply"])
def test_the_note_on_a_missing_key_names_the_phase(phase):
    def forward(x):
        return FlaxModule(
            nn.Sequential([nn.Dense(2), nn.Dropout(0.5, deterministic=False)]),
            name="net",
        )(x)

    f = hk.transform(forward)
    params = f.init(KEY, X)
    call = {"init": lambda: f.init(None, X), "apply": lambda: f.apply(params, None, X)}
    with pytest.raises(flax.errors.InvalidRngError) as caught:
        call[phase]()
    notes = "\n".join(caught.value.__notes__)
    assert f".{phase}(" in notes
    assert (".apply(" in notes) == (phase == "apply")
