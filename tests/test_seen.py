"""How a bridged module looks: to its holder, in tables, as text, to interceptors."""

import gc
from typing import Any
import weakref

from both_phases import in_haiku
from catalogue import Norm
from catalogue import array
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import FlaxModule

KEY, X = jax.random.key(0), array(2, 4)


# Holders.


class Given(hk.Module):
    """Takes a module and has a leaf of its own."""

    def __init__(self, net, name="holder"):
        super().__init__(name=name)
        self.net = net

    def __call__(self, x, **kwargs):
        return self.net(x, **kwargs) * hk.get_parameter("w", (1, 1), init=jnp.ones)


class Blocks(nn.Module):
    @nn.compact
    def __call__(self, x):
        norm = nn.remat(Norm, static_argnums=(2,))(name="norm")
        return norm(nn.Dense(4, name="dense")(x), True)


class Twin(hk.Module):
    """The modules of `Blocks`, with Haiku's own."""

    def __call__(self, x):
        x = Leaves("dense", hk.get_parameter, kernel=(4, 4), bias=(4,))(x)
        with hk.name_scope("norm"):
            Leaves("Dense_0", hk.get_parameter, kernel=(4, 4), bias=(4,))(x)
            Leaves("BatchNorm_0", hk.get_parameter, scale=(4,), bias=(4,))(x)
            Leaves("Dense_1", hk.get_parameter, kernel=(4, 2), bias=(2,))(x)
        with hk.name_scope("batch_stats/norm"):
            Leaves("BatchNorm_0", hk.get_state, mean=(4,), var=(4,))(x)
        return x[:, :2]


class Leaves(hk.Module):
    def __init__(self, name, get, **shapes):
        super().__init__(name=name)
        self.get, self.shapes = get, shapes

    def __call__(self, x):
        for name, shape in self.shapes.items():
            self.get(name, shape, init=jnp.ones)
        return x


def bridged():
    return FlaxModule(Blocks(), name="net")


def wrapped():
    return hk_bridge.wrap(Blocks)(name="net")


def shapes(module):
    shape = lambda tree: {k: v.shape for k, v in tree.items()}
    return shape(module.params_dict()), shape(module.state_dict())


def sequential(build, x):
    holder = hk.Sequential([build(), jnp.tanh])
    holder(x)
    return [holder]


def given(build, x):
    holder = Given(build())
    holder(x)
    return [holder, holder.net]


def given_twice(build, x):
    inner = Given(build(), name="inner")
    outer = Given(inner)
    outer(x)
    return [outer, inner, inner.net]


def in_a_holder_given(build, x):
    """The one in the middle builds it, the one outside is given the middle."""

    class Middle(hk.Module):
        def __init__(self):
            super().__init__(name="middle")
            self.net = build()

        def __call__(self, x):
            return self.net(x)

    outer = Given(Middle())
    outer(x)
    return [outer, outer.net]


def called_before(build, x):
    net = build()
    net(x)
    holder, other = Given(net), Given(net, name="idle")
    holder(x)
    return [holder, other]


def in_a_method(build, x):
    class Runs(hk.Module):
        def run(self, net, x):
            return net(x)

    holder = Runs(name="runs")
    holder.run(build(), x)
    return [holder]


def in_a_scope(build, x):
    net = build()
    holder = Given(net)
    with hk.name_scope("a"):
        holder(x)
    return [holder]


def under_an_interceptor(build, x):
    look = lambda run, args, kwargs, context: run(*args, **kwargs)
    with hk.intercept_methods(look):
        return given(build, x)


def in_remat(build, x):
    holder = Given(build())
    hk.remat(lambda x: holder(x))(x)
    return [holder]


def two_of_them(build, x):
    holder = hk.Sequential([build(), Given(hk.Linear(3)), jnp.tanh])
    holder(x)
    return [holder]


HOLDERS = [
    sequential, given, given_twice, in_a_holder_given, called_before, in_a_method,
    in_a_scope, under_an_interceptor, in_remat, two_of_them,
]  # fmt: skip


@pytest.mark.parametrize("hold", HOLDERS)
@pytest.mark.parametrize("build", [bridged, wrapped])
def test_a_holder_sees_the_leaves_of_what_it_is_given(hold, build):
    look = lambda build: in_haiku(lambda x: [shapes(m) for m in hold(build, x)], X)
    ours, theirs = look(build), look(lambda: Twin(name="net"))
    assert ours == theirs
    assert any("net/batch_stats/norm/BatchNorm_0/mean" in k for k in ours[0][0][1])


def test_a_deep_rnn_sees_the_leaves_of_its_cells():
    def forward(x):
        cells = [hk_bridge.nn.LSTMCell(3, name="a"), hk_bridge.nn.GRUCell(3, name="b")]
        rnn = hk.DeepRNN(cells)
        rnn(x, rnn.initial_state(2))
        return set(rnn.params_dict())

    f = hk.transform(forward)
    names = {f"{m}/{k}" for m, bundle in f.init(KEY, X).items() for k in bundle}
    assert in_haiku(forward, X) == [names, names]


def test_a_method_that_fails_tells_nobody():
    def forward(x):
        holder = Given(FlaxModule(nn.Dense(3), name="net"))
        if not hk.running_init():
            with pytest.raises(TypeError):
                holder(x, no_such=1)
            return shapes(holder)[0]
        return holder(x)

    assert in_haiku(forward, X)[1] == {"holder/w": (1, 1)}


def table(forward):
    """Of each row: the module, the leaves that it counts, and the stack."""
    return [
        (
            row.module_details.module.module_name,
            {k: v.shape for k, v in row.module_details.params.items()},
            {k: v.shape for k, v in row.module_details.state.items()},
            [state.module.module_name for state in row.call_stack],
        )
        for row in hk.experimental.eval_summary(forward)(X)
    ]


@pytest.mark.parametrize("hold", HOLDERS)
def test_tables_of_a_holder(hold):
    rows = table(lambda x: hold(bridged, x))
    names = {name.removeprefix("middle/~/") for name, *_ in rows}
    for name, params, state, _ in rows:
        if "net" in name.split("/"):  # counts what is below it, no callers
            counted = {key.rpartition("/")[0] for key in (*params, *state)}
            assert all(f"{key}/".startswith(f"{name}/") for key in counted), name
    assert {"net", "net/dense", "net/norm/Dense_0"} <= names
    theirs = table(lambda x: hold(lambda: Twin(name="net"), x))
    holders = lambda rows: [row[:3] for row in rows if "net" not in row[0].split("/")]
    assert holders(rows) == holders(theirs)


def test_a_printed_table_of_a_holder():
    f = lambda x: Given(FlaxModule(nn.Dense(3), name="net"))(x)
    assert "FlaxModule(Dense(features=3), name='net')" in hk.experimental.tabulate(f)(X)


# What is told.


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(3)(x))


@pytest.mark.parametrize(
    "build",
    [  # Flax's `nn.remat` with `static_argnums` leaks natively
        lambda: FlaxModule(nn.remat(Net)(), name="net"),
        lambda: hk_bridge.wrap(Net)(name="net"),
    ],
)
def test_a_table_keeps_no_tracer(build):
    with jax.checking_leaks():
        rows = hk.experimental.eval_summary(lambda x: Given(build())(x))(X)
    assert {"net", "net/Dense_0"} <= {r.module_details.module.module_name for r in rows}


def test_what_an_interceptor_keeps_is_not_the_arrays():
    kept, arrays = [], []

    class Holds(nn.Module):
        table: Any

        @nn.compact
        def __call__(self, x):
            return x + nn.Dense(4)(x)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            value = np.ones([4])
            arrays.append(weakref.ref(value))
            return Holds(value)(x)

    def look(run, args, kwargs, context):
        if context.method_name == "__call__":
            kept.append(context)
        return run(*args, **kwargs)

    def forward(x):
        with hk.intercept_methods(look):
            return FlaxModule(Net(), name="net")(x)

    hk.transform(forward).init(KEY, X)
    gc.collect()
    assert {c.module.module_name for c in kept} >= {
        "net/Holds_0",
        "net/Holds_0/Dense_0",
    }
    assert [array() for array in arrays] == [None]
    (late, *_) = [c for c in kept if c.module.module_name == "net/Holds_0"]
    with pytest.raises(RuntimeError, match="'net/Holds_0'.*has ended"):
        late.orig_method(X)
