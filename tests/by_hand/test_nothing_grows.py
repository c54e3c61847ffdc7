"""One trace, and nothing that grows with the calls."""

import contextlib
import gc

import flax.linen as nn
import haiku as hk
from hand import KEY
from hand import LIFTS
from hand import X
from hand import keep
import pytest

from hk_bridge import FlaxModule


def traces_of(lift):
    """A module that counts how often Python runs inside its lifted block."""
    runs: list[str] = []

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            runs.append("block")
            return nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x))

    Lifted = lift(Block)  # one class, as of a module that is built at the top of a file

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return Lifted(name="block")(x)

    return Net(), runs


HOOKS = {
    "nothing": contextlib.nullcontext,
    "a getter": lambda: hk.custom_getter(keep, state=True),
    "a creator": lambda: hk.custom_creator(lambda make, *args: make(*args[:3])),
    "a setter": lambda: hk.custom_setter(keep),
}


@pytest.mark.parametrize("phase", ["init", "apply"])
@pytest.mark.parametrize("hook", HOOKS)
def test_nn_jit_traces_once_over_many_calls(phase, hook):
    module, runs = traces_of(nn.jit)

    def forward(x):
        with HOOKS[hook]():
            return FlaxModule(module, name="net")(x)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    call = {
        "init": lambda: f.init(KEY, X),
        "apply": lambda: f.apply(params, state, None, X),
    }[phase]
    call()
    before = len(runs)
    for _ in range(4):
        call()
    assert len(runs) == before


@pytest.mark.parametrize("phase", ["init", "apply"])
def test_who_intercepts_sees_inside_nn_jit_at_each_call(phase):
    module, _ = traces_of(nn.jit)
    names: list[str] = []

    def note(run, args, kwargs, context):
        names.append(context.module.module_name)
        return run(*args, **kwargs)

    def forward(x):
        net = FlaxModule(module, name="net")
        with hk.intercept_methods(note):
            return net(x)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    for _ in range(2):
        names.clear()
        f.init(KEY, X) if phase == "init" else f.apply(params, state, None, X)
        assert {"net", "net/block", "net/block/Dense_0"} <= set(names)


@pytest.mark.parametrize("lift", LIFTS)
@pytest.mark.parametrize("phase", ["init", "apply"])
def test_no_objects_are_left_of_calls(phase, lift):
    module, _ = traces_of(LIFTS[lift])
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    params, state = f.init(KEY, X)
    call = {
        "init": lambda: f.init(KEY, X),
        "apply": lambda: f.apply(params, state, None, X),
    }[phase]

    def left(calls):
        for _ in range(calls):
            call()
        gc.collect()
        return len(gc.get_objects())

    left(5)
    before = left(5)
    assert left(30) - before < 30
