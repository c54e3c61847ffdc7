"""Leaves that creators and getters keep elsewhere."""

import haiku as hk
from hand import LIFTS
from hand import StepsByHand
from hand import assert_equal
from hand import keep
from hand import steps
from hand import steps_of
import pytest


def dropping(which):
    def setter(put, value, context):
        return hk.DO_NOT_STORE if which in context.full_name else put(value)

    return setter


def elsewhere(kind, anew):
    """Haiku stores no leaf of this kind, or only those of `two`: `bank` has them."""
    bank = {}

    def creator(make, shape, dtype, init, context):
        if kind == "some" and "two" not in context.full_name:
            return make(shape, dtype, init)
        if anew or hk.running_init():
            bank[context.full_name] = init(shape, dtype) * 2
        return hk.DO_NOT_STORE

    def getter(get, value, context):
        return get(bank[context.full_name] if value is hk.DO_NOT_STORE else value)

    return creator, getter


@pytest.mark.parametrize("lift", ["plain", "remat"])
@pytest.mark.parametrize("kind", ["all", "some"])
@pytest.mark.parametrize("of", ["params", "state", "both"])
@pytest.mark.parametrize("anew", [False, True], ids=["at init", "at each call"])
def test_leaves_that_are_not_stored(request, anew, of, kind, lift):
    nothing_held = of != "params" and kind == "all"
    if nothing_held or lift == "remat" and (anew or of != "params"):
        reason = "Haiku holds nothing, or cannot be asked in lifted code"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))

    def run(build):
        creator, getter = elsewhere(kind, anew)
        setter = dropping("two" if kind == "some" else "")
        wanted = {"params": of != "state", "state": of != "params"}

        def scenario(build, x):
            with (
                hk.custom_creator(creator, **wanted),
                hk.custom_getter(getter, **wanted),
                hk.custom_setter(setter if wanted["state"] else keep),
            ):
                return build("net")(x)

        # What Haiku leaves of a bundle without leaves is up to chance.
        bare = lambda state: {name: leaves for name, leaves in state.items() if leaves}
        return [(y, bare(state)) for y, state in steps(build, scenario, calls=2)]

    assert_equal(run(steps_of(LIFTS[lift])), run(StepsByHand))


@pytest.mark.parametrize("lift", LIFTS)
@pytest.mark.parametrize("which", ["two", "n", "nothing"])
def test_writes_that_are_not_stored(which, lift):
    def scenario(build, x):
        net = build("net")
        y = net(x)
        with hk.custom_setter(dropping(which)):
            y = y + net(x)
        return y + net(x)

    assert_equal(steps(steps_of(LIFTS[lift]), scenario), steps(StepsByHand, scenario))
