"""Errors that the caller catches: what was made before them is kept."""

import contextlib

import flax.linen as nn
import haiku as hk
from hand import KEY
from hand import LIFTS
from hand import Scale
from hand import Steps
from hand import StepsByHand
from hand import Stop
from hand import X
from hand import assert_equal
from hand import ramp
from hand import steps
from hand import steps_of
import jax
import jax.numpy as jnp
import pytest

from hk_bridge import FlaxModule

STOPS = ["before one", "after one", "before three", "end"]


def stopped(build, x, stop):
    with contextlib.suppress(Stop):
        build("net")(x, stop)
    return x


def then_again(build, x, stop):
    net = build("net")
    with contextlib.suppress(Stop):
        net(x, stop)
    return net(x)


def before_it(build, x, stop):
    net = build("net")
    y = net(x)
    with contextlib.suppress(Stop):
        net(x, stop)
    return y + net(x)


def of_two(build, x, stop):
    with contextlib.suppress(Stop):
        x = build("a")(x)
        build("b")(x, stop)
    return x


def only_at_init(build, x, stop):
    return then_again(build, x, stop if hk.running_init() else None)


def twice_in_a_row(build, x, stop):
    net = build("net")
    for place in (stop, stop, "after one"):
        with contextlib.suppress(Stop):
            net(x, place)
    return x


@pytest.mark.parametrize("lift", LIFTS)
@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize(
    "scenario", [stopped, then_again, before_it, of_two, only_at_init, twice_in_a_row]
)
def test_what_was_made_before_an_error_is_kept(scenario, stop, lift):
    run = lambda build, x: scenario(build, x, stop)
    assert_equal(steps(steps_of(LIFTS[lift]), run), steps(StepsByHand, run))


@pytest.mark.parametrize("which", ["one", "two"])
def test_an_error_of_a_hook_keeps_what_was_made(which):
    def creator(make, shape, dtype, init, context):
        if f"/{which}" in context.full_name and context.full_name.startswith("net"):
            raise Stop
        return make(shape, dtype, init)

    def run(build, x):
        if not hk.running_init():
            return x
        with contextlib.suppress(Stop), hk.custom_creator(creator):
            build("net")(x)
        return x

    assert_equal(steps(steps_of(LIFTS["plain"]), run)[0], steps(StepsByHand, run)[0])


@pytest.mark.parametrize("stop", ["after two", "end"])
@pytest.mark.parametrize("lift", ["remat", "jit"])
def test_an_error_inside_a_lifted_transform_leaves_no_tracer(stop, lift):
    """What is made inside is lost with its trace; what was made before it is kept."""

    class Around(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = Scale(name="first")(x)
            inside = lambda steps, x: steps(x, stop)
            return LIFTS[lift](inside)(Steps(name="steps"), x)

    def forward(x):
        net = FlaxModule(Around(), name="net")
        with contextlib.suppress(Stop):
            net(x)
        return x

    f = hk.transform_with_state(forward)
    with jax.checking_leaks():
        params, state = f.init(KEY, X)
    assert_equal(params["net/first"], {"w": ramp((4,))})
    assert_equal(state["net/counts/first"], {"n": jnp.ones(())})
    assert not any(
        isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((params, state))
    )
