"""A bridged module among hk.Modules that make the same leaves by hand: one law."""

import collections
from collections.abc import Callable
import contextlib
import gc
from typing import Any
from typing import NamedTuple

import chex
import flax
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hk_bridge import FlaxModule
from hk_bridge import to_flax
from hk_bridge import to_haiku
from hk_bridge import wrap

KEY = jax.random.key(0)
X = jnp.arange(8.0).reshape(2, 4)


def ramp(shape, dtype=jnp.float32):
    """An initial value of any shape, without a key."""
    return jnp.arange(1.0, 1.0 + np.prod(shape)).reshape(shape).astype(dtype)


def keyed(init):
    return lambda key, *args: init(*args)


class Scale(nn.Module):
    """A parameter, and state that counts the calls."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", keyed(ramp), (x.shape[-1],))
        n = self.variable("counts", "n", jnp.ones, ())
        if not self.is_initializing():  # init of Haiku gives what state starts from
            n.value = n.value + 1
        return x * jnp.broadcast_to(w, x.shape) + n.value

    @nn.compact
    def other(self, x):
        return x + self.param("v", keyed(ramp), ())


class ByHand(hk.Module):
    """What `Scale` is, written for Haiku."""

    def __call__(self, x):
        w = hk.get_parameter("w", (x.shape[-1],), init=ramp)
        with hk.name_scope("counts"):
            n = hk.get_state("n", (), init=jnp.ones)
            hk.set_state("n", n + 1)
        return x * jnp.broadcast_to(w, x.shape) + n + 1

    def other(self, x):
        return x + hk.get_parameter("v", (), init=ramp)


class Bridged(FlaxModule):
    """Has the method that it does not leave to `method=`."""

    def other(self, x):
        return self(x, method="other")


def bridged(name):
    return Bridged(Scale(), name=name)


def assert_equal(ours, theirs):
    chex.assert_trees_all_equal_structs(ours, theirs)
    chex.assert_trees_all_equal(ours, theirs, strict=True)


def steps(build, scenario, calls=3):
    """What init gives, and some calls after it, state handed on."""
    f = hk.transform_with_state(lambda x: scenario(build, x))
    params, state = f.init(KEY, X)
    found = [(params, state)]
    for _ in range(calls):
        y, state = f.apply(params, state, KEY, X)
        found.append((y, state))
    return found


def same_as_by_hand(scenario):
    assert_equal(steps(bridged, scenario), steps(ByHand, scenario))


# Names in force.


def renaming(names, scope):
    """An interceptor under which the modules of these names run under `scope()`."""

    def interceptor(run, args, kwargs, context):
        if context.method_name == "__init__" or context.module.name not in names:
            return run(*args, **kwargs)
        with scope():
            return run(*args, **kwargs)

    return hk.intercept_methods(interceptor)


def forced(name):
    return lambda: hk.name_scope(hk.experimental.force_name(name))


def two_share_a_forced_name(build, x):
    with renaming("ab", forced("shared")):
        return build("a")(x) + build("b")(x)


def two_get_a_scope_inside(build, x):
    with renaming("ab", lambda: hk.name_scope("inner")):
        return build("a")(x) + build("b")(x)


def scopes_are_nested(build, x):
    with renaming("ab", forced("one")), renaming("b", forced("two")):
        return build("a")(x) + build("b")(x)


def a_native_one_shares(build, x):
    with renaming("abc", forced("shared")):
        return build("a")(x) + build("b")(x) + ByHand(name="c")(x)


def a_native_one_made_it_first(build, x):
    with renaming("abc", forced("shared")):
        return ByHand(name="c")(x) + build("a")(x)


def only_the_second_call_is_renamed(build, x):
    net = build("a")
    y = net(x)
    with renaming("a", forced("elsewhere")):
        return y + net(x)


def only_the_first_call_is_renamed(build, x):
    net = build("a")
    with renaming("a", forced("elsewhere")):
        y = net(x)
    return y + net(x)


def another_method_is_renamed(build, x):
    net = build("a")
    with renaming("a", forced("elsewhere")):
        return net(net.other(x))


def a_name_is_anothers(build, x):
    with renaming("a", forced("b")):
        return build("a")(x) + build("b")(x)


def names_are_swapped(build, x):
    a, b = build("a"), build("b")
    with renaming("a", forced("b")), renaming("b", forced("a")):
        return a(x) + 10 * b(2 * x) + a.other(x)


def a_forced_name_has_parts(build, x):
    with renaming("ab", forced("over/there")):
        return build("a")(x) + build("b")(x)


def by_name_at_construction(build, x):
    a = build(hk.experimental.force_name("shared"))
    return a(x) + build(hk.experimental.force_name("shared"))(x)


def in_a_scope_without_interceptor(build, x):
    with hk.name_scope("outer"):
        a = build("a")
    with hk.name_scope("elsewhere"):
        return a(x) + a.other(x)


def inside_a_module_and_forced_out(build, x):
    class Holder(hk.Module):
        def __call__(self, x):
            return build("a")(x)

    with renaming("a", forced("top")):
        return Holder()(x) + Holder()(x)


def under_remat(build, x):
    with renaming("ab", forced("shared")):
        return hk.remat(lambda x: build("a")(x) + build("b")(x))(x)


def in_hk_scan(build, x):
    net = build("a")
    net(x)
    with renaming("a", forced("elsewhere")):
        net(x)

        def step(carry, x):
            return carry, net(x)

        return hk.scan(step, 0, jnp.stack([x, 2 * x]))[1]


def by_a_custom_creator_by_name(build, x):
    with (
        renaming("a", forced("b")),
        hk.custom_creator(
            lambda make, shape, dtype, init, context: make(
                shape, dtype, hk.initializers.Constant(len(context.full_name))
            )
        ),
    ):
        return build("a")(x)


def by_a_custom_getter_by_name(build, x):
    def getter(get, value, context):
        return get(value) * len(context.full_name) + len(context.module.module_name)

    with renaming("a", forced("somewhere")), hk.custom_getter(getter, state=True):
        return build("a")(x)


NAMES = [
    *(two_share_a_forced_name, two_get_a_scope_inside, scopes_are_nested),
    *(a_native_one_shares, a_native_one_made_it_first, only_the_second_call_is_renamed),
    *(only_the_first_call_is_renamed, another_method_is_renamed, a_name_is_anothers),
    *(names_are_swapped, a_forced_name_has_parts, by_name_at_construction),
    *(in_a_scope_without_interceptor, inside_a_module_and_forced_out, under_remat),
    *(in_hk_scan, by_a_custom_creator_by_name, by_a_custom_getter_by_name),
]


@pytest.mark.parametrize("scenario", NAMES)
def test_leaves_are_filed_under_the_name_in_force(scenario):
    same_as_by_hand(scenario)


@pytest.mark.parametrize("scenario", NAMES[:4])
def test_the_name_in_force_holds_inside_lifted_transforms(scenario):
    def build(name):
        return FlaxModule(nn.remat(Scale)(), name=name)

    assert_equal(steps(build, scenario), steps(ByHand, scenario))


def test_the_variables_are_those_under_the_modules_own_name():
    """`net.variables` is no method call that is renamed, as a property of natives."""

    def forward(x):
        net = bridged("a")
        with renaming("a", forced("b")):
            net(x)
        net(x)
        return net.variables["params"]["w"]

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    params["a"]["w"] = params["a"]["w"] * 7
    assert_equal(f.apply(params, state, KEY, X)[0], params["a"]["w"])


# Getters are told what was asked for.


def stacked(n):
    """As AlphaFold's layer_stack: a creator stacks, a getter slices."""

    def creator(make, shape, dtype, init, context):
        def stack(shape, dtype):
            return jnp.stack([init(shape[1:], dtype) * (i + 1) for i in range(n)])

        return make((n, *shape), dtype, stack)

    return creator


def sliced(i):
    def getter(get, value, context):
        return get(value[i])

    return getter


def layer(build, x, i, n=3):
    with hk.custom_creator(stacked(n)), hk.custom_getter(sliced(i)):
        return build("layer")(x)


def all_layers(build, x):
    return layer(build, layer(build, layer(build, x, 0), 1), 2)


def one_layer(build, x):
    return layer(build, x, 1)


def in_a_loop(build, x):
    if hk.running_init():
        return layer(build, x, 0)
    return hk.scan(lambda x, i: (layer(build, x, i), None), x, jnp.arange(3))[0]


def in_haikus_layer_stack(build, x):
    return hk.experimental.layer_stack(3)(lambda x: build("layer")(x) * 2)(x)


class Seen(NamedTuple):
    original: Any
    dtype: Any
    value: Any
    name: str


def _seeing(seen):
    def getter(get, value, context):
        seen.append(
            Seen(
                tuple(context.original_shape),
                jnp.dtype(context.original_dtype),
                value.shape,
                context.full_name,
            )
        )
        return get(value)

    return getter


class NoState(nn.Module):
    lift: Callable[..., Any] = staticmethod(lambda cls: cls)

    @nn.compact
    def __call__(self, x):
        return self.lift(Weigh)(name="weigh")(x)


class Weigh(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.param("w", keyed(ramp), (x.shape[-1],))
        b = self.param("b", keyed(ramp), (1,), jnp.bfloat16)
        w, b = jnp.broadcast_to(w, x.shape), jnp.broadcast_to(b, x.shape)
        return x * w + b.astype(x.dtype)


class NoStateByHand(hk.Module):
    def __call__(self, x):
        with hk.name_scope("weigh"):
            w = hk.get_parameter("w", (x.shape[-1],), init=ramp)
            b = hk.get_parameter("b", (1,), jnp.bfloat16, init=ramp)
        w, b = jnp.broadcast_to(w, x.shape), jnp.broadcast_to(b, x.shape)
        return x * w + b.astype(x.dtype)


def lifted(lift):
    return lambda name: FlaxModule(NoState(lift), name=name)


PLAIN = lifted(lambda cls: cls)


@pytest.mark.parametrize("scenario", [all_layers, one_layer, in_a_loop])
def test_a_creator_stacks_and_a_getter_slices(scenario):
    assert_equal(steps(PLAIN, scenario), steps(NoStateByHand, scenario))


@pytest.mark.parametrize("lift", [nn.remat, nn.jit], ids=["remat", "jit"])
@pytest.mark.parametrize("scenario", [all_layers, one_layer, in_a_loop])
def test_a_creator_stacks_what_is_inside_lifted_transforms(scenario, lift):
    assert_equal(steps(lifted(lift), scenario), steps(NoStateByHand, scenario))


@pytest.mark.parametrize("build", [PLAIN, lifted(nn.remat)], ids=["plain", "remat"])
def test_haikus_own_layer_stack(build):
    one, two = (steps(b, in_haikus_layer_stack) for b in (build, NoStateByHand))
    assert_equal(one, two)


@pytest.mark.parametrize("build", [PLAIN, lifted(nn.remat)], ids=["plain", "remat"])
def test_hk_vmap_without_split_rngs(build):
    def scenario(build, x):
        return hk.vmap(build("net"), split_rng=False)(x[:, None])

    assert_equal(steps(build, scenario), steps(NoStateByHand, scenario))


@pytest.mark.parametrize("stack", [False, True])
def test_a_getters_context_is_as_by_hand(stack):
    def run(build):
        seen = []

        def scenario(build, x):
            creator = stacked(3) if stack else lambda make, *args: make(*args[:3])
            getter = sliced(0) if stack else lambda get, value, context: get(value)
            with (
                hk.custom_creator(creator),
                hk.custom_getter(_seeing(seen)),
                hk.custom_getter(getter),
            ):
                return build("net")(x)

        steps(build, scenario)
        return seen

    assert run(PLAIN) == run(NoStateByHand)


# Getters that make leaves while they read.


def lora(get, value, context):
    name = "d_" + context.name
    return get(value + hk.get_parameter(name, value.shape, value.dtype, init=ramp))


def lora_named_alike(get, value, context):
    return get(value + hk.get_parameter("d", (), init=ramp).astype(value.dtype))


def with_state(get, value, context):
    n = hk.get_state("reads", (), init=jnp.zeros)
    hk.set_state("reads", n + 1)
    return get(value * (n + 1).astype(value.dtype))


def with_a_module(get, value, context):
    if context.name != "w":
        return get(value)
    return get(
        hk.Linear(4, w_init=hk.initializers.Constant(2.0), name="of_getter")(value)
    )


GETTERS = [lora, lora_named_alike, with_a_module]


@contextlib.contextmanager
def reading(getter):
    """`getter` for what Flax makes alone: a getter sees the leaves it makes, too."""

    def guarded(get, value, context):
        if context.name.startswith("d") or "of_getter" in context.full_name:
            return get(value)
        return getter(get, value, context)

    with hk.custom_getter(guarded):
        yield


@pytest.mark.parametrize("getter", [*GETTERS, with_state], ids=lambda g: g.__name__)
@pytest.mark.parametrize("build", [bridged, PLAIN], ids=["with state", "no state"])
@pytest.mark.parametrize("order", ["under", "plain then under", "under then plain"])
def test_getters_make_leaves_while_they_read(getter, build, order):
    def scenario(build, x):
        net = build("net")
        if order == "plain then under":
            x = net(x)
        with reading(getter):
            x = net(x)
        return net(x) if order == "under then plain" else x

    hand = ByHand if build is bridged else NoStateByHand
    assert_equal(steps(build, scenario), steps(hand, scenario))


@pytest.mark.xfail(
    strict=True, reason="at apply nothing tells who made a leaf before its getter runs"
)
@pytest.mark.parametrize("getter", GETTERS, ids=lambda g: g.__name__)
def test_what_a_getter_makes_is_not_of_the_flax_module(getter):
    names = []

    class Looks(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.param("w", keyed(ramp), (4,))
            names.append(sorted(self.variables["params"]))
            return x * w[None]

    def forward(x):
        net = FlaxModule(Looks(), name="net")
        net(x)
        with reading(getter):
            y = net(x)
        net(x)
        names.append(sorted(net.variables["params"]))
        return y

    f = hk.transform(forward)
    f.apply(f.init(KEY, X), KEY, X)
    assert names == [["w"]] * 8


# Values that are no arrays.


@chex.dataclass
class Moments:
    mean: Any
    var: Any


@chex.dataclass(frozen=True, mappable_dataclass=False)
class NoMapping:
    mean: Any
    var: Any


class Pair(NamedTuple):
    mean: Any
    var: Any


@jax.tree_util.register_pytree_node_class
class Node:
    def __init__(self, mean, var):
        self.mean, self.var = mean, var

    def tree_flatten(self):
        return (self.mean, self.var), "static"

    @classmethod
    def tree_unflatten(cls, static, children):
        assert static == "static"
        return cls(*children)


def as_ordered(mean, var):
    return collections.OrderedDict(var=var, mean=mean)


def as_default(mean, var):
    return collections.defaultdict(list, mean=mean, var=var)


def as_odd_keys(mean, var):
    return {(0, 1): mean, (1, 0): var}


KINDS = {
    "chex": lambda mean, var: Moments(mean=mean, var=var),
    "chex without mapping": lambda mean, var: NoMapping(mean=mean, var=var),
    "named tuple": Pair,
    "node": Node,
    "OrderedDict": as_ordered,
    "defaultdict": as_default,
    "odd keys": as_odd_keys,
    "tuple": lambda mean, var: (mean, var),
    "list": lambda mean, var: [mean, var],
    "nested": lambda mean, var: (Moments(mean=mean, var=var), {"a": Pair(mean, var)}),
    "chex in chex": lambda m, v: Moments(mean=Moments(mean=m, var=v), var=v),
    "None inside": lambda mean, var: (mean, None, var),
}


# Flax itself makes plain dicts of these, where they may change.
COPIED = {"OrderedDict", "defaultdict"}


class Holds(nn.Module):
    """A parameter and state of one kind of value, looked at from inside."""

    kind: str
    note: Callable[[Any], None]

    @nn.compact
    def __call__(self, x):
        kinds = self.kind, "tuple" if self.kind in COPIED else self.kind
        made = [KINDS[kind](jnp.ones(4), jnp.full(4, 2.0)) for kind in kinds]
        p = self.param("p", lambda key: made[0])
        s = self.variable("moving", "s", lambda: made[1])
        self.note(jax.tree.structure((p, s.value)))
        one = jax.tree.leaves(p)[-1]
        s.value = jax.tree.map(lambda a: a + one, s.value)
        first, *_ = jax.tree.leaves(s.value)
        return x * first[None]


class Outer(nn.Module):
    kind: str
    note: Callable[[Any], None]
    lift: Any

    @nn.compact
    def __call__(self, x):
        return self.lift(Holds)(self.kind, self.note, name="holds")(x)


LIFTS = {"plain": lambda cls: cls, "remat": nn.remat, "jit": nn.jit}


@pytest.mark.parametrize("lift", LIFTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_any_kind_is_what_flax_has(kind, lift):
    structures: list[Any] = []
    module = Outer(kind, structures.append, LIFTS[lift])
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    params, state = f.init(KEY, X)
    variables = module.init(KEY, X)
    assert_equal(to_flax(params, state, name="net"), variables)
    for _ in range(2):
        y, state = f.apply(params, state, KEY, X)
        theirs, changed = module.apply(variables, X, mutable=["moving"])
        variables = {**variables, **changed}
        assert_equal(y, theirs)
        assert_equal(to_flax(params, state, name="net"), variables)
    assert len(set(structures)) == 1
    assert_equal(to_haiku(variables, name="net"), (params, state))


def keep(move, value, context):
    return move(value)


def double(move, value, context):
    return move(twice(value))


def twice(tree):
    return jax.tree.map(lambda a: a * 2, tree)


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_of_any_kind_under_a_getter_and_a_setter(kind):
    module = Outer(kind, [].append, LIFTS["plain"])

    def forward(x, getter=keep, setter=keep):
        with hk.custom_getter(getter), hk.custom_setter(setter):
            return FlaxModule(module, name="net")(x)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    variables = module.init(KEY, X)
    doubled = {**variables, "params": twice(variables["params"])}
    y, after = f.apply(params, state, KEY, X, double)
    theirs, changed = module.apply(doubled, X, mutable=["moving"])
    assert_equal(y, theirs)
    assert_equal(to_flax({}, after, name="net"), changed)
    _, after = f.apply(params, state, KEY, X, keep, double)
    _, changed = module.apply(variables, X, mutable=["moving"])
    assert_equal(to_flax({}, after, name="net"), twice(changed))


# Errors that the caller catches.


class Stop(Exception):
    pass


class Steps(nn.Module):
    """Three counters one after another, and an error at one place, if asked for."""

    lift: Callable[..., Any] = staticmethod(lambda cls: cls)

    @nn.compact
    def __call__(self, x, stop=None):
        for name in ("one", "two", "three"):
            if stop == f"before {name}":
                raise Stop
            x = self.lift(Scale)(name=name)(x)
            if stop == f"after {name}":
                raise Stop
        w = self.param("last", keyed(ramp), (1,))
        if stop == "end":
            raise Stop
        return x * jnp.broadcast_to(w, x.shape)


class StepsByHand(hk.Module):
    def __call__(self, x, stop=None):
        for name in ("one", "two", "three"):
            if stop == f"before {name}":
                raise Stop
            with forced(f"{self.module_name}/{name}")():
                w = hk.get_parameter("w", (x.shape[-1],), init=ramp)
            with forced(f"{self.module_name}/counts/{name}")():
                n = hk.get_state("n", (), init=jnp.ones)
                if not hk.running_init():
                    n = n + 1
                    hk.set_state("n", n)
            x = x * jnp.broadcast_to(w, x.shape) + n
            if stop == f"after {name}":
                raise Stop
        w = hk.get_parameter("last", (1,), init=ramp)
        if stop == "end":
            raise Stop
        return x * jnp.broadcast_to(w, x.shape)


def steps_of(lift):
    return lambda name: FlaxModule(Steps(lift), name=name)


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


# Leaves that are kept elsewhere.


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


# One trace, and nothing that grows.


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


# Small.


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
