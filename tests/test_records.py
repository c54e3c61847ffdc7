"""What is recorded of a call is what happened in it: what was read, written and made.

By convention a module here only reads the variables whose names start with `r`, and
writes those that start with `w`. So natively a setter would be asked about every `w`,
and about no `r`, whatever transform is between.
"""

from concurrent.futures import ThreadPoolExecutor
import contextlib
import re
from typing import Any
import weakref

from catalogue import array
import flax.errors
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge._flax import lifted
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)
NAME = "net"
PARAMS_KEY = {"params": KEY}


def copied(tree):
    """`tree` in containers of its own, with the very same leaves."""
    return jax.tree.map(lambda leaf: leaf, tree)


def assert_very_same(tree, other):
    """Both hold the same objects as leaves, in the same places."""
    assert jax.tree.structure(tree) == jax.tree.structure(other)
    leaves = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    assert all(one is two for one, two in leaves)


def bridged(make, *args, **kwargs):
    """A transform that calls one bridged module."""
    return hk.transform_with_state(
        lambda: FlaxModule(make(), name=NAME)(*args, **kwargs)
    )


def listening(log):
    """A setter that notes what is written."""

    def setter(next_setter, value, context):
        log.append(context.name)
        return next_setter(value)

    return hk.custom_setter(setter)


def fresh(base):
    """A class of its own, of which nothing was lifted or traced yet."""
    return type(base.__name__, (base,), {})


def assert_as_native(make, *args, jit=False, steps=3):
    """Init and calls are Flax's; setters hear of each `w`, and state keeps each `r`."""
    put = []

    def forward(args, rngs):
        with listening(put):
            return FlaxModule(make(), name=NAME)(*args, rngs=rngs)

    def native(variables, args, rngs):
        mutable = sorted(variables.keys() - {"params"})
        y, changed = make().apply(variables, *args, rngs=rngs, mutable=mutable)
        return y, {**variables, **changed}

    f = hk.transform_with_state(forward)
    maybe_jit = jax.jit if jit else lambda function: function
    apply, native = maybe_jit(f.apply), maybe_jit(native)
    rngs = lambda step: {
        "params": jax.random.key(step),
        "dropout": jax.random.key(step + 100),
    }
    variables = make().init(rngs(0), *args)
    params, state = f.init(None, args, rngs(0))
    assert_identical(hk_bridge.to_flax(params, state, name=NAME), variables)
    names = sorted(name for bundle in state.values() for name in bundle)
    for step in range(1, steps + 1):
        del put[:]
        before, own = copied((params, state)), state
        y, state = apply(params, state, None, args, rngs(step))
        assert_very_same((params, own), before)
        if step == 1 or not jit:
            assert sorted(set(put)) == [name for name in names if name[0] == "w"]
            assert len(put) == len(set(put)) or len(names) > len(set(names))
        expected, variables = native(variables, args, rngs(step))
        assert_identical(y, expected)
        assert_identical(hk_bridge.to_flax(params, state, name=NAME), variables)
        for module_name, bundle in own.items():
            for name, leaf in bundle.items():
                assert jit or name[0] == "w" or state[module_name][name] is leaf


# Lifted classes.


class Body(nn.Module):
    """Reads one variable, writes another, and has a parameter."""

    @nn.compact
    def __call__(self, x, *_):
        r = self.variable("stats", "r", jnp.full, [], 0.1234567)
        w = self.variable("stats", "w", jnp.zeros, [])
        x = nn.Dense(4)(x) * r.value
        if not self.is_initializing():
            w.value = w.value + x.sum()
        return x + w.value


class Layer(Body):
    """The same for `nn.scan`."""

    @nn.compact
    def __call__(self, x, *_):
        return super().__call__(x), None


AXES = {
    "variable_axes": {"params": 0, "stats": 0, "batch_stats": 0},
    "split_rngs": {"params": True},
}


def scan(cls):
    return nn.scan(cls, length=2, **AXES)


def vmap(cls):
    return nn.vmap(cls, **AXES)


LIFTS = {
    "plain": lambda cls, layer: fresh(cls),
    "remat": lambda cls, layer: nn.remat(fresh(cls)),
    "jit": lambda cls, layer: nn.jit(fresh(cls)),
    "vmap": lambda cls, layer: vmap(fresh(cls)),
    "scan": lambda cls, layer: scan(fresh(layer)),
    "jit_scan": lambda cls, layer: nn.jit(scan(fresh(layer))),
    "remat_scan": lambda cls, layer: nn.remat(scan(fresh(layer))),
    "scan_remat": lambda cls, layer: scan(nn.remat(fresh(layer))),
    "scan_jit": lambda cls, layer: scan(nn.jit(fresh(layer))),
    "vmap_jit": lambda cls, layer: vmap(nn.jit(fresh(cls))),
    "jit_vmap": lambda cls, layer: nn.jit(vmap(fresh(cls))),
    "jit_jit": lambda cls, layer: nn.jit(nn.jit(fresh(cls))),
    "remat_remat": lambda cls, layer: nn.remat(nn.remat(fresh(cls))),
    "jit_remat": lambda cls, layer: nn.jit(nn.remat(fresh(cls))),
    "remat_jit": lambda cls, layer: nn.remat(nn.jit(fresh(cls))),
    "jit_remat_scan_jit": lambda cls, layer: nn.jit(
        nn.remat(scan(nn.jit(fresh(layer))))
    ),
    "metadata": lambda cls, layer: nn.add_metadata_axis(
        fresh(cls), variable_axes={"params": 0}
    ),
}


class Twice(nn.Module):
    """Calls one lifted module, below this one, twice."""

    cls: Any

    @nn.compact
    def __call__(self, x):
        layer = self.cls()
        for _ in range(2):
            y = layer(x)
            x = y[0] if isinstance(y, tuple) else y
        return x


@pytest.fixture
def at_first(monkeypatch):
    """As in a process that has lifted nothing yet."""
    monkeypatch.setattr(lifted, "untold", weakref.WeakSet())


@pytest.mark.parametrize("jit", [False, True], ids=["eager", "jit"])
@pytest.mark.parametrize("lift", LIFTS)
def test_lifted_classes(lift, jit, at_first):
    cls = LIFTS[lift](Body, Layer)
    assert_as_native(cls, X, jit=jit, steps=2)


@pytest.mark.parametrize("lift", LIFTS)
def test_lifted_classes_called_twice(lift, at_first):
    cls = LIFTS[lift](Body, Layer)
    assert_as_native(lambda: Twice(cls), X, steps=2)


# Lifted functions, and the order of reads and writes.


def read(m, x):
    return x * m.get_variable("stats", "r") + m.get_variable("stats", "w")


def write(m, x):
    m.put_variable("stats", "w", m.get_variable("stats", "w") + x.sum())
    return x * m.get_variable("stats", "r")


def write_the_same(m, x):
    m.put_variable("stats", "w", m.get_variable("stats", "w"))
    return x


def vjp_of(f):
    def call(m, x):
        y, back = nn.vjp(f, m, x, vjp_variables=False)
        return y + back(jnp.ones_like(y))[1]

    return call


def custom_vjp_of(f):
    def call(m, x):
        forward = lambda m, x: nn.vjp(f, m, x)
        return nn.custom_vjp(f, forward, lambda back, y: back(y))(m, x)

    return call


def jvp_of(f):
    def call(m, x):
        y, dy = nn.jvp(f, m, (x,), (x,), {})
        return y + dy

    return call


def loop_of(f, **options):
    def call(m, x):
        body = lambda m, c: (c[0] + 1, f(m, c[1]))
        below = lambda m, c: c[0] < 3
        return nn.while_loop(below, body, m, (0, x), **options)[1]

    return call


def cond_of(one, two, which):
    return lambda m, x: nn.cond(jnp.asarray(which), one, two, m, x)


def switch_of(index, *branches):
    return lambda m, x: nn.switch(index, branches, m, x)


def mapped_of(f):
    double = lambda tree: jax.tree.map(lambda v: v * 2, tree)
    return nn.map_variables(f, "stats", double)


def grad_of(f):
    def call(m, x):
        y, (_, dx) = nn.value_and_grad(lambda m, x: f(m, x).sum(), m, x)
        return dx + y

    return call


FUNCTIONS = {
    "remat": nn.remat,
    "jit": nn.jit,
    "remat of jit": lambda f: nn.remat(lambda m, x: nn.jit(f)(m, x)),
    "vjp": vjp_of,
    "custom_vjp": custom_vjp_of,
    "jvp": jvp_of,
    "while_loop": lambda f: loop_of(f, carry_variables="stats"),
    "cond": lambda f: cond_of(f, lambda m, x: x, True),
    "other branch": lambda f: cond_of(f, lambda m, x: x, False),
    "switch": lambda f: switch_of(2, lambda m, x: x, lambda m, x: 2 * x, f),
    "other case": lambda f: switch_of(0, lambda m, x: x, lambda m, x: 2 * x, f),
}


def put(m, x):
    """Writes without a look at what there was, right after what came before."""
    m.put_variable("stats", "w", x.sum())
    return x


def set_value(m, x):
    m.w.value = x.sum()
    return x


ORDERS = {
    "read": lambda f: [f(read), put],
    "read, set": lambda f: [f(read), set_value],
    "write": lambda f: [f(write)],
    "write the same": lambda f: [f(write_the_same)],
    "put, read": lambda f: [put, f(read)],
    "put, read, put": lambda f: [put, f(read), put],
    "read, read, put": lambda f: [f(read), f(read), put],
    "write, put": lambda f: [f(write), put],
    "read, write": lambda f: [f(read), f(write)],
}


class InOrder(nn.Module):
    """Does the steps, one after the other, once it has its variables."""

    steps: Any

    def setup(self):
        self.r = self.variable("stats", "r", jnp.full, [], 0.1234567)
        self.w = self.variable("stats", "w", jnp.zeros, [])

    def __call__(self, x):
        for step in () if self.is_initializing() else self.steps:
            x = step(self, x)
        return x + self.w.value


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_order(function, order, at_first):
    steps = tuple(ORDERS[order](FUNCTIONS[function]))
    assert_as_native(lambda: InOrder(steps), X, steps=2)


# Traces of `nn.jit` that are met again: there nothing runs, and nothing is recorded.


class Sower(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.variable("stats", "w", jnp.zeros, [])
        self.variable("stats", "r", jnp.ones, [])
        w.value = w.value + 1
        x = nn.Dense(4)(x)
        self.sow("intermediates", "h", x)
        self.sow("losses", "total", x.sum())
        return x


CACHED = {
    "jit": nn.jit,
    "jit_jit": lambda cls: nn.jit(nn.jit(cls)),
    "jit_remat": lambda cls: nn.jit(nn.remat(cls)),
    "remat_jit": lambda cls: nn.remat(nn.jit(cls)),
    "remat": nn.remat,
}


@pytest.mark.parametrize("first", ["native", "bridged"])
@pytest.mark.parametrize("lift", CACHED)
def test_what_is_sown_is_known_at_each_init(lift, first, at_first):
    module = CACHED[lift](fresh(Sower))()
    filled = ["stats", "losses", "intermediates"]

    def native():
        variables = module.init(PARAMS_KEY, X)
        variables = {c: variables[c] for c in ("params", "stats")}
        _, changed = module.apply(variables, X, mutable=filled)
        return variables, changed

    def ours():
        params, state = bridged(lambda: module, X, rngs=PARAMS_KEY).init(None)
        apply = bridged(lambda: module, X, mutable=filled).apply
        (_, changed), new = apply(params, state, None)
        assert_identical(new["net/stats"], changed["stats"])
        return hk_bridge.to_flax(params, state, name=NAME), changed

    order = [native, ours] if first == "native" else [ours, native]
    results = [run() for run in (*order, *order)]
    for result in results[1:]:
        assert_identical(result, results[0])


@pytest.mark.parametrize("lift", CACHED)
def test_many_inits_are_one_like_the_other(lift):
    """Flax compares what `nn.jit` goes by through hashes alone."""
    module = CACHED[lift](fresh(Sower))()
    f = bridged(lambda: module, X)
    for _ in range(12):
        assert list(f.init(KEY)[1]) == ["net/stats"]


# State that is only read stays what it is, whatever hooks are in force.


class Evaluated(nn.Module):
    @nn.compact
    def __call__(self, x, *_):
        r = self.variable("stats", "r", jnp.full, [], 0.1234567)
        x = nn.Dense(4, dtype=x.dtype)(x)
        x = nn.BatchNorm(use_running_average=True, dtype=x.dtype)(x)
        return x * r.value.astype(x.dtype)


class EvaluatedLayer(Evaluated):
    @nn.compact
    def __call__(self, x, *_):
        return super().__call__(x), None


class Through(nn.Module):
    """Has a lifted function call a submodule."""

    function: Any

    @nn.compact
    def __call__(self, x):
        inner = Evaluated()
        lift = (lambda f: f) if self.is_initializing() else self.function
        return lift(lambda m, x: m(x))(inner, x)


def by_method(lift):
    class Decorated(nn.Module):
        def setup(self):
            self.inner = Evaluated()

        @lift
        def __call__(self, x):
            return self.inner(x)

    return Decorated


def policy(next_getter, value, context):
    return next_getter(value).astype(jnp.bfloat16)


HOOKS = {
    "policy": lambda: hk.mixed_precision.push_policy(
        FlaxModule, jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    ),
    "getter": lambda: hk.custom_getter(policy, params=False, state=True),
    "setter": lambda: hk.custom_setter(lambda put, v, context: put(v * 0.5)),
}
READERS = {
    **{
        name: lambda lift=lift: lift(Evaluated, EvaluatedLayer)()
        for name, lift in LIFTS.items()
    },
    **{
        f"function under {name}": lambda f=f: Through(f)
        for name, f in FUNCTIONS.items()
    },
    "method under remat": lambda: by_method(nn.remat)(),
    "method under jit": lambda: by_method(nn.jit)(),
    "method under both": lambda: by_method(lambda f: nn.jit(nn.remat(f)))(),
}


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("reader", READERS)
def test_evaluation_leaves_state_alone(reader, hook, at_first):
    module = READERS[reader]()
    variables = jax.jit(module.init)(PARAMS_KEY, X)
    params, state = hk_bridge.to_haiku(variables, name=NAME)

    def forward():
        with HOOKS[hook](), jax.numpy_dtype_promotion("standard"):
            return FlaxModule(module, name=NAME)(X)

    f = hk.transform_with_state(forward)
    for _ in range(2):
        _, new = f.apply(params, state, None)
        assert_very_same(new, state)
    if hook == "policy":  # where a jitted step would compile twice
        assert_identical(jax.jit(f.apply)(params, state, None)[1], state)


# What is written at init, and what a setter says to it.


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


# Values that are trees.


@pytest.mark.parametrize("lift", ["plain", "remat", "jit"])
@pytest.mark.parametrize(
    "value",
    [
        {(0, 1): 0.0, (1, 0): 0.0},
        {1.5: {"a": 0.0}},
        {"a": {(0,): 0.0}, "b": {"c": 0.0}},
        [0.0, {(2,): 0.0}],
        (None, {True: 0.0}),
    ],
    ids=str,
)
def test_a_value_that_is_a_tree(value, lift):
    class Tree(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.variable("stats", "w", lambda: jax.tree.map(jnp.asarray, value))
            if not self.is_initializing():
                w.value = jax.tree.map(lambda v: v + 8, w.value)
            return x + sum(jax.tree.leaves(w.value))

    module = LIFTS[lift](Tree, None)()
    variables = module.init(KEY, X)
    f = bridged(lambda: module, X)
    params, state = f.init(KEY)
    assert_identical(hk_bridge.to_flax(params, state, name=NAME), variables)
    y, changed = module.apply(variables, X, mutable=["stats"])
    for apply in (f.apply, f.apply, jax.jit(f.apply)):
        before = copied(state)
        output, new = apply(params, state, None)
        assert_very_same(state, before)
        assert_identical(output, y)
        assert_identical(hk_bridge.to_flax({}, new, name=NAME), changed)


def test_a_module_that_changes_a_dict_in_place_changes_its_own():
    class InPlace(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = self.variable("stats", "w", lambda: [{"a": jnp.zeros([])}])
            w.value[0]["a"] = w.value[0]["a"] + 1
            return x + w.value[0]["a"]

    f = bridged(InPlace, X)
    params, state = f.init(KEY)
    before = copied(state)
    first, _ = f.apply(params, state, None)
    again, _ = f.apply(params, state, None)
    assert_very_same(state, before)
    assert_identical(again, first)


# Leaves that are not Flax's do not get into Flax's variables.


class Looks(nn.Module):
    """Adds the number of leaves that it sees."""

    lift: Any = staticmethod(lambda cls: cls)
    function: Any = staticmethod(lambda x: x)

    @nn.compact
    def __call__(self, x):
        y = self.function(self.lift(nn.Dense)(4, name="dense")(x))
        return y + len(jax.tree.leaves(self.variables))


def adapted(next_getter, value, context):
    """Adds to each weight a parameter of the getter's own."""
    if context.name.endswith("_delta"):
        return next_getter(value)
    name, half = f"{context.name}_delta", hk.initializers.Constant(0.5)
    return next_getter(value) + hk.get_parameter(name, value.shape, init=half)


@pytest.mark.parametrize(
    "lift",
    [
        lambda cls: cls,
        nn.remat,
        nn.jit,
        lambda cls: nn.vmap(
            cls, variable_axes={"params": 0}, split_rngs={"params": True}
        ),
        lambda cls: nn.remat(nn.jit(cls)),
    ],
    ids=["plain", "remat", "jit", "vmap", "both"],
)
def test_leaves_of_a_getter(lift):
    module = Looks(lift)
    native = module.init(PARAMS_KEY, X)

    def forward():
        with hk.custom_getter(adapted):
            net = FlaxModule(module, name=NAME)
            return net(X, rngs=PARAMS_KEY), net.variables

    # What init knows, apply does not: it may run in another process.
    params, state = hk.transform_with_state(forward).init(None)
    assert len(jax.tree.leaves(params)) == 2 * len(jax.tree.leaves(native))
    (y, variables), _ = hk.transform_with_state(forward).apply(params, state, None)
    assert_identical(variables, jax.tree.map(lambda v: v + 0.5, native))
    assert_identical(y, module.apply(variables, X))


def test_a_scalar_of_a_getter_under_scan():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return nn.Dense(4)(x), None

    module = nn.scan(Block, length=3, **AXES)()

    def gained(next_getter, value, context):
        if context.name == "gain":
            return next_getter(value)
        return next_getter(value) * hk.get_parameter("gain", [], init=jnp.ones)

    def forward():
        with hk.custom_getter(gained):
            return FlaxModule(module, name=NAME)(X, None, rngs=PARAMS_KEY)

    f = hk.transform_with_state(forward)
    params, state = f.init(None)
    native = module.init(PARAMS_KEY, X, None)
    assert_identical(f.apply(params, state, None)[0], module.apply(native, X, None))


FIELDS = {
    "linear": lambda: hk.Linear(4),
    "linear_of_a_name_of_flax": lambda: hk.Linear(4, name="dense"),
    "bridged": lambda: FlaxModule(Body(parent=None), name="inner"),
}


@pytest.mark.parametrize("field", FIELDS)
def test_leaves_of_a_function_in_a_field(field):
    seen = []

    def forward():
        function = lambda x: FIELDS[field]()(x)
        net = FlaxModule(Looks(function=function), name=NAME)
        y = net(X, rngs=PARAMS_KEY)
        seen.append((y, net.variables))
        return y

    params, state = hk.transform_with_state(forward).init(KEY)
    hk.transform_with_state(forward).apply(params, state, KEY)
    (_, at_init), (_, at_apply) = seen
    native = Looks().init(PARAMS_KEY, X)
    assert_identical(at_init, native)
    assert_identical(at_apply, native)


def test_leaves_of_a_subclass():
    class Scaled(FlaxModule):
        def __call__(self, x):
            y = super().__call__(x, rngs=PARAMS_KEY)
            scaled = y * hk.get_parameter("scale", [], init=jnp.ones)
            return y, hk.Linear(4, name="dense")(scaled), self.variables

    forward = lambda: Scaled(Looks(), name=NAME)(X)
    params, state = hk.transform_with_state(forward).init(KEY)
    (y, _, seen), _ = hk.transform_with_state(forward).apply(params, state, None)
    native = Looks().init(PARAMS_KEY, X)
    assert_identical(seen, native)
    assert_identical(y, Looks().apply(native, X))


# Calls of a module inside a call of it, as a Haiku module that calls itself.


class Counts(nn.Module):
    """Counts its calls, and has some of them fail."""

    inner: Any
    fails: bool = False

    @nn.compact
    def __call__(self, depth):
        w = self.variable("stats", "w", jnp.zeros, [])
        if not self.is_initializing():
            w.value = w.value + 1
            if self.fails and depth == 0:
                raise ZeroDivisionError
        if depth:
            with contextlib.suppress(ZeroDivisionError):
                self.inner(depth - 1)
        return w.value


class CountsInHaiku(hk.Module):
    def __init__(self, fails, name):
        super().__init__(name)
        self.fails = fails

    def __call__(self, depth):
        w = hk.get_state("w", [], init=jnp.zeros)
        if not hk.running_init():
            hk.set_state("w", w + 1)
            if self.fails and depth == 0:
                raise ZeroDivisionError
        if depth:
            with contextlib.suppress(ZeroDivisionError):
                self(depth - 1)
        return hk.get_state("w")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_calls_inside_calls(depth, fails):
    def ours():
        net = FlaxModule(Counts(lambda n: net(n), fails), name=NAME)
        return net(depth), net(depth)

    def theirs():
        net = CountsInHaiku(fails, name=NAME)
        return net(depth), net(depth)

    results = []
    for forward in (ours, theirs):
        f = hk.transform_with_state(forward)
        params, state = f.init(None)
        y, new = f.apply(params, state, None)
        results.append((y, *jax.tree.leaves((state, new))))
    assert_identical(*results)


def test_a_call_inside_a_call_that_asked_for_what_it_changed():
    def forward():
        net = FlaxModule(Counts(lambda n: net(n)), name=NAME)
        return net(2, mutable=["stats"])

    f = hk.transform_with_state(forward)
    (y, changed), new = f.apply(*f.init(None), None)
    assert_identical(changed["stats"], new["net/stats"])
    assert_identical(y, jnp.asarray(3.0))


# Streams.


class Noisy(nn.Module):
    @nn.compact
    def __call__(self, x):
        if not self.has_rng("noise"):
            return x
        return x + jax.random.normal(self.make_rng("noise"), x.shape)


class Holds(nn.Module):
    cls: Any

    @nn.compact
    def __call__(self, x):
        return self.cls(name="noisy")(x)


NOISY = {
    "plain": lambda cls: cls,
    "remat": nn.remat,
    "jit": nn.jit,
    "remat_remat": lambda cls: nn.remat(nn.remat(cls)),
    "jit_remat": lambda cls: nn.jit(nn.remat(cls)),
    "remat_jit": lambda cls: nn.remat(nn.jit(cls)),
    "vmap": lambda cls: nn.vmap(cls, variable_axes={}, split_rngs={"noise": True}),
    "vmap_all": lambda cls: nn.vmap(cls, variable_axes={}, split_rngs={True: True}),
    "vmap_jit": lambda cls: nn.vmap(
        nn.jit(cls), variable_axes={}, split_rngs={"noise": True}
    ),
    "map_variables": lambda cls: nn.map_variables(cls, "params"),
}


# There no key of Haiku can be drawn, and nothing outside names the stream.
REFUSED = ("remat", "jit", "remat_remat", "jit_remat", "remat_jit", "vmap_all")


@pytest.mark.parametrize("lift", NOISY)
def test_noise_is_not_silently_left_out(lift):
    """Haiku's key is used, or it is an error that names the line to write."""
    module = Holds(NOISY[lift](fresh(Noisy)))
    f = bridged(lambda: module, X)
    line = re.escape("rngs={'noise': hk.next_rng_key(), ...}")
    if lift in REFUSED:
        with pytest.raises(flax.errors.InvalidRngError, match=line):
            f.apply({}, {}, KEY)
    else:
        assert (f.apply({}, {}, KEY)[0] != X).all()
    assert_identical(f.apply({}, {}, None)[0], X)
    rngs = {"noise": KEY}
    y, _ = bridged(lambda: module, X, rngs=rngs).apply({}, {}, None)
    assert_identical(y, module.apply({}, X, rngs=rngs))


# Shared scopes.


class Grandchild(nn.Module):
    @nn.compact
    def __call__(self, x):
        w = self.variable("stats", "w", jnp.zeros, [])
        if not self.is_initializing():
            w.value = w.value + x.sum()
        return nn.Dense(4)(x) + w.value


class Child(nn.Module):
    child: Any

    @nn.compact
    def __call__(self, x):
        return self.child(x)


class Shares(nn.Module):
    main_child: Any

    def setup(self):
        nn.share_scope(self, self.main_child)

    def __call__(self, x):
        return self.main_child(x)


class SharesInside(nn.Module):
    def setup(self):
        self.inside = Child(Grandchild())
        nn.share_scope(self, self.inside)

    def __call__(self, x):
        return self.inside(x)


class SharesLate(nn.Module):
    """Makes a variable before its scope is another."""

    def setup(self):
        self.child = Grandchild(name="kid")
        self.w = self.variable("stats", "w_own", jnp.zeros, [])
        nn.share_scope(self, self.child)

    def __call__(self, x):
        if not self.is_initializing():
            self.w.value = self.w.value + 1
        return self.child(x) + self.w.value


class Above(nn.Module):
    cls: Any

    @nn.compact
    def __call__(self, x):
        return self.cls()(x)


SHARES = {
    "external": lambda: Shares(Child(Grandchild())),
    "lifted": lambda: Shares(Child(nn.remat(Grandchild)())),
    "jitted": lambda: Shares(Child(nn.jit(Grandchild)())),
    "inside": SharesInside,
    "late": SharesLate,
    "late_below": lambda: Above(SharesLate),
    "inside_remat": lambda: nn.remat(Above)(SharesInside),
    "inside_jit": lambda: nn.jit(Above)(SharesInside),
    "late_in_jit": lambda: nn.jit(Above)(SharesLate),
    "remat": lambda: Above(nn.remat(SharesLate)),
}


@pytest.mark.parametrize("shares", SHARES)
def test_shared_scopes(shares):
    assert_as_native(SHARES[shares], X, steps=2)


# Haiku's transforms around, as around a Haiku module.


class BodyInHaiku(hk.Module):
    def __call__(self, x):
        r = hk.get_state("r", [], init=hk.initializers.Constant(0.5))
        w = hk.get_state("w", [], init=jnp.zeros)
        if not hk.running_init():
            hk.set_state("w", w := w + x.sum())
        return x * r + w


class Stateful(nn.Module):
    @nn.compact
    def __call__(self, x):
        r = self.variable("stats", "r", jnp.full, [], 0.5)
        w = self.variable("stats", "w", jnp.zeros, [])
        if not self.is_initializing():
            w.value = w.value + x.sum()
        return x * r.value + w.value


AROUND = {
    "remat": lambda f, x: hk.remat(f)(x),
    "cond": lambda f, x: hk.cond(x.sum() < 1e9, f, lambda x: x, x),
    "other_branch": lambda f, x: hk.cond(x.sum() < 1e9, lambda x: x, f, x),
    "switch": lambda f, x: hk.switch(1, [lambda x: x, f], x),
    "scan": lambda f, x: hk.scan(lambda c, _: (f(c), c), x, None, length=3),
    "fori_loop": lambda f, x: hk.fori_loop(0, 3, lambda i, x: f(x), x),
    "while_loop": lambda f, x: hk.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 1, f(c[1])), (0, x)
    ),
    "grad": lambda f, x: (f(x), hk.grad(lambda x: f(x).sum())(x)),
    "map": lambda f, x: hk.map(f, jnp.stack([x, x])),
    "remat_of_scan": lambda f, x: hk.remat(lambda x: AROUND["scan"](f, x))(x),
    "scan_of_cond": lambda f, x: AROUND["scan"](lambda x: AROUND["cond"](f, x), x),
    "eval_shape": lambda f, x: (hk.eval_shape(f, x).shape, f(x)),
}


@pytest.mark.parametrize("lift", ["plain", "remat", "jit", "jit_remat"])
@pytest.mark.parametrize("around", AROUND)
def test_transforms_of_haiku_around(around, lift):
    cls = LIFTS[lift](Stateful, None)

    def result(build):
        put = []

        def forward(x):
            net = build()
            with listening(put):
                return net(x) if hk.running_init() else AROUND[around](net, x)

        f = hk.transform_with_state(forward)
        params, state = jax.jit(f.init)(None, X)
        results = []
        for apply in (f.apply, f.apply, jax.jit(f.apply)):
            del put[:]
            before, own = copied(state), state
            y, state = apply(params, state, None, X)
            assert_very_same(own, before)
            results.append((y, *state.values(), list(put)))
        return results

    ours = result(lambda: FlaxModule(cls(), name=NAME))
    assert_identical(ours, result(lambda: BodyInHaiku(name=NAME)))


# `mutable=`, `net.variables`, threads, leaks.


@pytest.mark.parametrize(
    "mutable",
    [False, True, "stats", [], ["intermediates"], "params", nn.DenyList("stats")],
    ids=str,
)
@pytest.mark.parametrize("lift", ["plain", "remat", "jit", "vmap", "jit_remat"])
def test_what_the_caller_lets_change(lift, mutable):
    module = LIFTS[lift](Body, Layer)()
    variables = module.init(PARAMS_KEY, X)
    put = []

    def forward():
        with listening(put):
            return FlaxModule(module, name=NAME)(X, mutable=mutable)

    f = hk.transform_with_state(forward)
    params, state = hk_bridge.to_haiku(variables, name=NAME)
    try:
        expected = module.apply(variables, X, mutable=mutable)
    except flax.errors.FlaxError as error:
        with pytest.raises(type(error)):
            f.apply(params, state, None)
        return
    y, new = f.apply(params, state, None)
    assert_identical(y, expected)
    changed = expected[1].get("stats") if mutable is not False else None
    assert_identical(new["net/stats"], changed or variables["stats"])
    assert put == (["w"] if changed else [])


@pytest.mark.parametrize("lift", ["plain", "remat", "jit", "vmap"])
def test_the_variables_of_a_net_are_the_callers(lift):
    module = LIFTS[lift](Body, Layer)()
    seen = []

    def forward():
        net = FlaxModule(module, name=NAME)
        net(X, rngs=PARAMS_KEY)
        variables = net.variables
        seen.append(copied(variables))
        variables["stats"].clear()
        return net(X, rngs=PARAMS_KEY)

    f = hk.transform_with_state(forward)
    params, state = f.init(None)
    f.apply(params, state, None)
    native = module.init(PARAMS_KEY, X)
    _, changed = module.apply(native, X, mutable=["stats"])
    assert_identical(seen, [native, {**native, **changed}])
    assert_identical(hk_bridge.to_flax(params, state, name=NAME), native)


class Both(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.jit(Body)()(nn.remat(Body)()(x))


def test_threads_do_not_see_each_other():
    f = hk.transform_with_state(lambda x: FlaxModule(Both(), name=NAME)(x))
    params, state = f.init(KEY, X)
    inputs = [X + i for i in range(8)]
    expected = [f.apply(params, state, None, x) for x in inputs]
    with ThreadPoolExecutor(8) as pool:
        calls = pool.map(lambda x: f.apply(params, state, None, x), inputs)
        assert_identical(list(calls), expected)
        for start in pool.map(lambda x: f.init(KEY, x), inputs):
            assert_identical(start, (params, state))


@pytest.mark.parametrize("lift", ["plain", "remat", "jit", "vmap", "jit_remat"])
def test_no_tracer_leaks(lift):
    f = bridged(LIFTS[lift](Body, Layer), X)
    with jax.checking_leaks():
        params, state = jax.jit(f.init)(KEY)
        loss = lambda params: f.apply(params, state, None)[0].sum()
        jax.jit(jax.grad(loss))(params)
        f.apply(params, state, None)
