"""`share_traces` inside one Flax module: submodules that are equal are traced once."""

import dataclasses
import functools
import logging
from typing import Any

from catalogue import array
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from test_share import KEY
from test_share import Runs
from test_share import X

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import _abstract
from hk_bridge._proof import program as _program
from hk_bridge.testing import assert_identical

pytestmark = pytest.mark.usefixtures("eager")


class Stack(nn.Module):
    """`n` modules, one after the other."""

    of: Any
    n: int = 8

    @nn.compact
    def __call__(self, x, *args):
        for i in range(self.n):
            x = self.of(i)(x, *args)
        return x


class Logs(nn.Module):
    """Says that it runs."""

    def __call__(self, x):
        logging.getLogger("runs").warning("")
        return x


class Block(nn.Module):
    """Norm, noise and a layer."""

    rate: float = 0.5
    features: int = 4

    @nn.compact
    def __call__(self, x):
        y = nn.BatchNorm(use_running_average=False)(Logs()(x))
        y = nn.Dropout(self.rate, deterministic=False)(nn.Dense(self.features)(y))
        return x + y * jax.random.normal(self.make_rng("noise"), y.shape)


def sides(module, *args):
    """The transforms of a module without and with sharing, and their inputs."""
    reports = []

    def forward(*args):
        return FlaxModule(module, name="net")(*args)

    def shared(*args):
        with hk_bridge.share_traces() as report:
            reports.append(report)
            return forward(*args)

    f, g = map(hk.transform_with_state, (forward, shared))
    return f, g, _abstract.evaluate(f.init, KEY, *args), reports


def assert_same(module, *args):
    """The program is that without sharing; the report."""
    f, g, (params, state), reports = sides(module, *args)
    one, two = (_abstract.trace(h.apply, params, state, KEY, *args) for h in (g, f))
    assert _program.difference(one.program, two.program) is None
    assert _abstract.are_equal(one.output, two.output)
    return reports[-1]


def test_the_first_runs_and_the_second_is_traced_for_the_rest():
    f, g, (params, state), reports = sides(Stack(lambda i: Block()), X)
    with Runs() as ran:
        _abstract.evaluate(g.apply, params, state, KEY, X)
    assert ran.count == 2
    assert reports[-1].shared == {"Block": 6}


def test_under_gradients_too():
    f, g, (params, state), reports = sides(Stack(lambda i: Block()), X)

    def loss(params, state, x):
        return g.apply(params, state, KEY, x)[0].sum()

    with Runs() as ran:
        jax.jit(jax.grad(loss)).lower(params, state, X)
    assert ran.count == 2


def of_gradients():
    """The inputs, and a loss with its gradient, without and with sharing."""
    x = array(8, 4)
    f, g, start, reports = sides(Stack(lambda i: Block(), 4), x)

    def gradient(side):
        def loss(params, state, x):
            output, after = side.apply(params, state, KEY, x)
            return jnp.sum(output**2), (output, after)

        return jax.value_and_grad(loss, has_aux=True)

    return f, (*start, x), [gradient(side) for side in (f, g)], reports


def test_program_masks_state_and_gradients_are_those_without():
    _, inputs, gradients, reports = of_gradients()
    one, two = (_abstract.trace(gradient, *inputs) for gradient in gradients)
    assert _program.difference(two.program, one.program) is None
    assert reports[-1].shared == {"Block": 2}


@pytest.mark.weekly
def test_values_of_gradients():
    f, (*_, x), gradients, _ = of_gradients()
    start = jax.jit(f.init)(KEY, x)
    assert_identical(*[jax.jit(gradient)(*start, x) for gradient in gradients])


def test_what_differs_is_not_shared():
    report = assert_same(Stack(lambda i: Block(rate=0.1 * i)), array(8, 4))
    assert report.shared.get("Block") is None


class Outer(nn.Module):
    """Two equal blocks in one that is itself there many times."""

    @nn.compact
    def __call__(self, x):
        return Block()(Block()(x))


def test_nested():
    report = assert_same(Stack(lambda i: Outer()), array(8, 4))
    assert report.shared["Outer"] == 6


# Modules that look at what is not in the key: right, whether shared or not.


class Looks(nn.Module):
    """Computes with what `look` gives for it."""

    look: Any

    @nn.compact
    def __call__(self, x):
        y = nn.Dense(4)(x)
        return y + jnp.float32(self.look(self))


class Parent(nn.Module):
    look: Any

    @nn.compact
    def __call__(self, x):
        for i in range(8):
            weight = self.param(f"weight_{i}", nn.initializers.constant(i), [])
            x = Looks(self.look)(x) * weight
        return x


def number(text):
    return float(len(text)) + float(ord(text[-1]))


ATTRIBUTE = "name"
LOOKS = {
    "unsaid": lambda m: number(str(getattr(m, ATTRIBUTE))),
    "name": lambda m: number(m.name),
    "getattr": lambda m: number(getattr(m, "name")),  # noqa: B009
    "path": lambda m: number(m.path[-1]),
    "scope_name": lambda m: number(m.scope.name),
    "scope_path": lambda m: number(m.scope.path[-1]),
    "path_text": lambda m: number(m.scope.path_text),
    "parent_name": lambda m: len(m.parent.path),
    "parent_variable": lambda m: m.parent.get_variable("params", "weight_0") + 1.0,
    "scope_parent": lambda m: len(m.scope.parent.variables()["params"]),
    "root": lambda m: len(m.scope.root.path) + 1.0,
    "variables": lambda m: len(m.variables) + len(m.variables["params"]),
    "has_variable": lambda m: m.has_variable("params", "Dense_0"),
    "no_variable": lambda m: m.has_variable("params", "weight_0"),
    "is_initializing": lambda m: m.is_initializing(),
    "mutable": lambda m: m.is_mutable_collection("stats"),
    "has_rng": lambda m: m.has_rng("any"),
    "fields": lambda m: len(dataclasses.fields(m)),
    "clone": lambda m: number(m.clone().name or "a"),
    "repr": lambda m: len(repr(m)),
    "asdict": lambda m: number(dataclasses.asdict(m.copy())["name"] or "a"),
    "key": lambda m: jax.random.normal(m.make_rng("noise")),
    "keys": lambda m: sum(jax.random.normal(m.make_rng(s)) for s in "abca"),
    "params_key": lambda m: jax.random.normal(m.make_rng()),
    "rngs": lambda m: len(m.scope.rngs),
    "unbound": lambda m: m.unbind()[0].name is None,
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_code_looks_at(look):
    assert_same(Parent(look), X)


class Twice(nn.Module):
    """Calls each block twice: keys are counted on."""

    of: Any

    @nn.compact
    def __call__(self, x):
        for _ in range(6):
            block = self.of()
            x = block(block(x))
        return x


class Counter(nn.Module):
    """State that is written and sown."""

    @nn.compact
    def __call__(self, x):
        count = self.variable("stats", "count", jnp.zeros, ())
        nested = self.variable("stats", "nested", lambda: {"a": jnp.ones(3)})
        count.value += x.sum()
        nested.value = {"a": nested.value["a"] * count.value}
        self.sow("intermediates", "y", x)
        self.sow("seen", "y", x.mean(), reduce_fn=lambda a, b: b, init_fn=float)
        return nn.Dense(4)(x) * count.value


class Drops(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(4)(x))


class WithSetup(nn.Module):
    def setup(self):
        self.layer, self.other = nn.Dense(4), [nn.Dense(4), nn.Dropout(0.5)]
        self.scale = self.param("scale", nn.initializers.normal(), [4])

    def __call__(self, x):
        y = self.other[1](self.layer(x), deterministic=False)
        return self.half(y) * self.scale[None]

    def half(self, x):
        return self.other[0](x) / 2


class KeyInSetup(nn.Module):
    def setup(self):
        self.noise = jax.random.normal(self.make_rng("noise"), [4])
        self.layer = nn.Dense(4)

    def __call__(self, x):
        key = self.make_rng("noise")
        return self.layer(x) + self.noise[None] + jax.random.normal(key)


class StateInSetup(nn.Module):
    def setup(self):
        self.count = self.variable("stats", "count", jnp.zeros, ())
        self.count.value += 1.0
        self.layer = nn.Dense(4)

    def __call__(self, x):
        return self.layer(x) + self.count.value


class Cache(nn.Module):
    """Keeps something from call to call, in Python."""

    def setup(self):
        self.layer, self.box = nn.Dense(4), Box()

    def __call__(self, x):
        self.box.calls += 1
        return self.layer(x) * self.box.calls


class Box:
    calls = 0


class Super(WithSetup):
    def __call__(self, x):
        return super().__call__(x) + self.layer(x)


class Given(nn.Module):
    """Gets a module from outside."""

    layer: nn.Module

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(self.layer(x))


class Gives(nn.Module):
    @nn.compact
    def __call__(self, x):
        shared = nn.Dense(4)
        for i in range(6):
            x = Given(shared if i % 2 else nn.Dense(4))(x)
        return x


class Closes(nn.Module):
    @nn.compact
    def __call__(self, x):
        layers = [nn.Dense(4), nn.Dense(4)]
        for i in range(6):
            x = Calls(lambda x, layer=layers[i % 2]: layer(x))(x)
        return x


class Calls(nn.Module):
    function: Any

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(self.function(x))


class SharesScope(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(6):
            x = Lora()(x)
        return x


class Lora(nn.Module):
    def setup(self):
        self.layer, self.down = nn.Dense(4), nn.Dense(2)
        self.up = nn.Dense(4)
        nn.share_scope(self, self.layer)

    def __call__(self, x):
        return self.layer(x) + self.up(self.down(x))


class PostInit(nn.Module):
    width: int

    def __post_init__(self):
        object.__setattr__(self, "twice", 2 * self.width)
        super().__post_init__()

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.twice)(x)[:, :4]


class Scans(nn.Module):
    @nn.compact
    def __call__(self, x):
        step = nn.scan(
            Cell, variable_broadcast="params", split_rngs={"params": False}, length=2
        )
        return step()(x, None)[0]


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.Dense(4)(x), None


class Boxed(nn.Module):
    @nn.compact
    def __call__(self, x):
        init = nn.with_partitioning(nn.initializers.normal(), ("a", "b"))
        x = nn.Dense(4, kernel_init=init)(x)
        scale = nn.with_partitioning(jnp.ones, (None, "a"))
        return x * self.variable("stats", "scale", scale, (1, 4)).value


class Reads(nn.Module):
    """Reads the variables of a block after it was called."""

    @nn.compact
    def __call__(self, x):
        total = 0.0
        for _ in range(6):
            block = Counter()
            x = block(x)
            total += block.get_variable("stats", "count")
        return x * total


class Methods(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(6):
            block = WithSetup()
            x = block.half(block(x))
            x = Outside()(x, 2.0, flag=True)
        return x


class Outside(nn.Module):
    @nn.compact
    def __call__(self, x, scale, *, flag):
        return nn.Dense(4)(x) * scale if flag else x


class Pair(nn.Module):
    """Whether two inputs are one."""

    @nn.compact
    def __call__(self, x):
        y = x
        for i in range(6):
            x, y = Same()(x, x if i % 2 else y)
        return x + y


class Same(nn.Module):
    @nn.compact
    def __call__(self, q, kv):
        y = nn.Dense(4)(q)
        return (2.0 * y, q) if q is kv else (y + kv, kv)


class Aliased(nn.Module):
    """Reaches what is not in the key by another name."""

    where = nn.Module.path

    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(x) * number("".join(self.where))


class Writes(nn.Module):
    @nn.compact
    def __call__(self, x, cache):
        cache["x"] = nn.Dense(4)(x)
        return x


class Written(nn.Module):
    @nn.compact
    def __call__(self, x):
        cache = {"x": x}
        for _ in range(6):
            x = Writes()(x, cache) + cache["x"]
        return x


RATED = functools.partial(Block, 0.5)
MODULES = {
    "twice": Twice(RATED),
    "twice_with_setup": Twice(WithSetup),
    "state": Stack(lambda i: Counter()),
    "state_twice": Twice(Counter),
    "setup": Stack(lambda i: WithSetup()),
    "key_in_setup": Stack(lambda i: KeyInSetup()),
    "state_in_setup": Stack(lambda i: StateInSetup()),
    "cache": Twice(Cache),
    "aliased": Stack(lambda i: Aliased()),
    "written": Written(),
    "super": Stack(lambda i: Super()),
    "given": Gives(),
    "closes": Closes(),
    "share_scope": SharesScope(),
    "post_init": Stack(lambda i: PostInit(1 + i % 2)),
    "remat": Stack(lambda i: nn.remat(WithSetup)()),
    "remat_of_keys": Stack(lambda i: nn.remat(Drops)()),
    "all_in_remat": nn.remat(Stack)(lambda i: Drops()),
    "jit": Stack(lambda i: nn.jit(Drops)()),
    "scan": Stack(lambda i: Scans()),
    "vmap": nn.vmap(
        Stack,
        variable_axes={"params": None, "batch_stats": None},
        split_rngs={"params": False, "dropout": True, "noise": True},
    )(lambda i: Scans()),
    "boxes": Stack(lambda i: Boxed()),
    "reads": Reads(),
    "methods": Methods(),
    "one_array_or_two": Pair(),
    "rnn": Stack(lambda i: nn.RNN(nn.GRUCell(4)), 3),
    "attention": Stack(lambda i: nn.MultiHeadAttention(2, dropout_rate=0.5,
                                                       deterministic=False), 4),
    "sequential": Stack(lambda i: nn.Sequential([nn.Dense(4), nn.gelu])),
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
def test_modules(module):
    x = array(2, 3, 4) if module in (MODULES["rnn"], MODULES["attention"]) else X
    assert_same(module, x)


@pytest.mark.parametrize("asks", ["layer", "parameter", "key", "state"])
def test_a_submodule_that_asks_haiku_is_not_shared(asks):
    """In each net it is another leaf, or key, that Haiku gives."""

    def what(x):
        if asks == "layer":
            return hk.Linear(4, w_init=hk.initializers.RandomNormal())(x)
        if asks == "parameter":
            w = hk.get_parameter("w", [1, 4], init=hk.initializers.RandomNormal())
            return x * w
        if asks == "key":
            return x + jax.random.normal(hk.next_rng_key(), x.shape)
        count = hk.get_state("n", [], init=jnp.zeros)
        hk.set_state("n", count + 1)
        return x + count

    def forward(x):
        for _ in range(6):
            x = FlaxModule(Calls(Calls(what)), name="net")(x)
        return x

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    programs = [jax.make_jaxpr(f.apply)(params, state, KEY, X)]
    with hk_bridge.share_traces():
        programs.append(
            jax.make_jaxpr(lambda *args: f.apply(*args))(params, state, KEY, X)
        )
    assert _program.difference(*programs) is None


class DrawsOfBoth(nn.Module):
    """Draws a key of Haiku, and after it one of a stream."""

    @nn.compact
    def __call__(self, x):
        x = x + jax.random.normal(hk.next_rng_key(), x.shape)
        return nn.Dense(4)(x) + jax.random.normal(self.make_rng("noise"), x.shape)


class HasOne(nn.Module):
    """Asks Haiku, and so runs as ever; what it has may be shared."""

    of: Any = DrawsOfBoth

    @nn.compact
    def __call__(self, x):
        assert hk.running_init() in (True, False)
        return self.of()(x)


class HasSome(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Stack(lambda i: DrawsOfBoth())(x)


@pytest.mark.parametrize("make", [DrawsOfBoth, HasOne, HasSome])
@pytest.mark.parametrize("counted", [False, True])
def test_keys_of_haiku_are_drawn_in_their_order(make, counted):
    def forward(x):
        for _ in range(6):
            x = FlaxModule(make())(x)
        return x + jax.random.normal(hk.next_rng_key(), x.shape)

    def function(x):
        return hk.experimental.optimize_rng_use(forward)(x) if counted else forward(x)

    def shared(x):
        with hk_bridge.share_traces():
            return function(x)

    f, g = map(hk.transform_with_state, (function, shared))
    start = _abstract.evaluate(hk.transform_with_state(forward).init, KEY, X)
    one, two = (_abstract.trace(h.apply, *start, KEY, X) for h in (g, f))
    assert _program.difference(one.program, two.program) is None
