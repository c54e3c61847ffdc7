"""Uses of a module in Haiku: `use(build, x)`, where `build(name)` builds it.

The same use runs a bridged module and a plain Haiku module with the same leaves."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax.numpy as jnp

from .hooks import HOOKS
from .hooks import own_leaf

Build = Callable[..., Any]
CALLS: list[Callable[[Any], Any]] = []  # what a module calls at its end


class Stopped(Exception):
    """Raised in the midst of a module, and caught outside."""


def call_back(x: Any) -> Any:
    """What stands at the end of a module: calls the next of `CALLS`, if any."""
    return CALLS.pop()(x) if CALLS else x


def holds(*modules: Any) -> None:
    """Notes what the tables of Haiku show of a module."""
    for module in modules:
        HOOKS.append(("params_dict", tuple(sorted(module.params_dict()))))
        HOOKS.append(("state_dict", tuple(sorted(module.state_dict()))))


def plain(build: Build, x: Any) -> Any:
    return build()(x)


def twice(build: Build, x: Any) -> Any:
    net = build()
    return net(net(x))


def by_two_names(build: Build, x: Any) -> Any:
    return build("net")(build("net")(x))


class Holder(hk.Module):
    """A module that builds the network in a constructor, or calls it in a method."""

    def __init__(self, build: Build):
        super().__init__(name="holder")
        self.build, self.net = build, build()

    def __call__(self, x: Any) -> Any:
        return self.net(x)

    def run(self, x: Any) -> Any:
        return self.build("other")(x)


def in_constructor(build: Build, x: Any) -> Any:
    holder = Holder(build)
    x = holder(x)
    holds(holder)
    return x


def in_method(build: Build, x: Any) -> Any:
    return Holder(build).run(x)


def in_scope(build: Build, x: Any) -> Any:
    with hk.name_scope("a/b"):
        return build()(x)


def in_forced_scope(build: Build, x: Any) -> Any:
    with hk.name_scope(hk.experimental.force_name("a")):
        return build()(x)


def under_renaming(build: Build, x: Any) -> Any:
    """An interceptor that has all modules share one name."""

    def rename(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name != "__call__":
            return run(*args, **kwargs)
        with hk.name_scope(hk.experimental.force_name("a")):
            return run(*args, **kwargs)

    with hk.intercept_methods(rename):
        return build("other")(build("net")(x))


def under_watching(build: Build, x: Any) -> Any:
    """An interceptor that shows all modules that are called."""

    def watch(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        assert context.method_name == "__init__" or repr(context.module)
        return run(*args, **kwargs)

    with hk.intercept_methods(watch):
        return build()(x)


def under_printing(build: Build, x: Any) -> Any:
    """An interceptor that shows all modules, also those that are being made."""

    def show(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        assert repr(context.module)
        return run(*args, **kwargs)

    with hk.intercept_methods(show):
        return build()(x)


def printed(build: Build, x: Any) -> Any:
    net = build()
    assert repr(net)
    return net(x)


def in_sequence(build: Build, x: Any) -> Any:
    sequence = hk.Sequential([build(), jnp.tanh])
    x = sequence(x)
    holds(sequence)
    return x


def in_deep_rnn(build: Build, x: Any) -> Any:
    rnn = hk.DeepRNN([build(), hk.IdentityCore()])
    x, _ = rnn(x, rnn.initial_state(None))
    holds(rnn)
    return x


def in_lift(build: Build, x: Any) -> Any:
    """In a transform of its own, which is lifted into the one outside."""
    f = hk.transform_with_state(lambda x: build()(x))
    start, updater = hk.lift_with_state(f.init, name="lifted")
    params, state = start(hk.next_rng_key() if hk.running_init() else None, x)
    x, state = f.apply(params, state, hk.next_rng_key(), x)
    updater.update(state)
    return x


def in_transparent_lift(build: Build, x: Any) -> Any:
    f = hk.transform_with_state(lambda x: build()(x))
    start, updater = hk.experimental.transparent_lift_with_state(f.init)
    params, state = start(hk.next_rng_key() if hk.running_init() else None, x)
    x, state = f.apply(params, state, hk.next_rng_key(), x)
    updater.update(state)
    return x


def rematted(build: Build, x: Any) -> Any:
    return hk.remat(lambda x: build()(x))(x)


def scanned(build: Build, x: Any) -> Any:
    net = build()
    if hk.running_init():
        return net(x)
    return hk.scan(lambda x, _: (net(x), None), x, None, length=2)[0]


def conditional(build: Build, x: Any) -> Any:
    net = build()
    if hk.running_init():
        return net(x)
    return hk.cond(x.sum() > 0.0, net, lambda x: x, x)


def vmapped(build: Build, x: Any) -> Any:
    net = build()
    if hk.running_init():
        return net(x)
    run = hk.vmap(net, in_axes=0, out_axes=0, split_rng=True)
    return run(jnp.stack([x, x])).sum(0)


def in_layer_stack(build: Build, x: Any) -> Any:
    return hk.experimental.layer_stack(2)(lambda x: build()(x))(x)


def reentrant(build: Build, x: Any) -> Any:
    """The module calls itself, two deep."""
    net = build()
    x = net(x)
    CALLS[:] = [net, net]
    return net(x)


def caught(build: Build, x: Any) -> Any:
    """At init the module raises at its end, which is caught."""

    def stop(x: Any) -> Any:
        raise Stopped

    net = build()
    if not hk.running_init():
        return net(x)
    CALLS[:] = [stop]
    try:
        return net(x)
    except Stopped:
        return x


def then_own_leaf(build: Build, x: Any) -> Any:
    """Called plainly, and then where a getter makes leaves of its own."""
    net = build()
    x = net(x)
    with own_leaf(type(net)):
        return net(x)


def without_repr(build: Build, x: Any) -> Any:
    with hk.config.context(module_auto_repr=False):
        net = build()
        HOOKS.append(("text", "object at" in repr(net)))  # Python's own
        return net(x)


def differentiated(build: Build, x: Any) -> Any:
    net = build()
    if hk.running_init():
        return net(x)
    return hk.grad(lambda x: net(x).sum())(x)


# Where numbers of values do not tell anything: the program is inside another.
OPAQUE = ("scanned", "conditional", "vmapped", "in_layer_stack", "differentiated")
