"""Names in force: leaves are filed under them, as by hand."""

import flax.linen as nn
import haiku as hk
from hand import KEY
from hand import ByHand
from hand import Scale
from hand import X
from hand import assert_equal
from hand import bridged
from hand import forced
from hand import same_as_by_hand
from hand import steps
import jax.numpy as jnp
import pytest

from hk_bridge import FlaxModule


def renaming(names, scope):
    """An interceptor under which the modules of these names run under `scope()`."""

    def interceptor(run, args, kwargs, context):
        if context.method_name == "__init__" or context.module.name not in names:
            return run(*args, **kwargs)
        with scope():
            return run(*args, **kwargs)

    return hk.intercept_methods(interceptor)


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
