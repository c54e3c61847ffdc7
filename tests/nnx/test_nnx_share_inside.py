"""`share_traces` inside one NNX module: submodules that are equal are traced once."""

from catalogue import array
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import pytest
from test_share import KEY
from test_share import Runs
from test_share_inside import Logs as LinenLogs
from test_share_inside import assert_same
from test_share_inside import sides

import hk_bridge
from hk_bridge import _abstract
from hk_bridge._proof import program as _program

pytestmark = pytest.mark.usefixtures("eager")
X = array(8, 4)


class Logs(nnx.Module):
    """Says that it runs."""

    def __call__(self, x):
        return LinenLogs()(x)


class Block(nnx.Module):
    """Norm, noise and a layer."""

    def __init__(self, rngs, rate=0.5):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.logs = Logs()

    def __call__(self, x):
        return x + self.dropout(self.linear(self.norm(self.logs(x))))


class Stack(nnx.Module):
    """Modules, one after the other."""

    def __init__(self, *modules):
        self.modules = nnx.List(modules)

    def __call__(self, x):
        for module in self.modules:
            x = module(x)
        return x


def stack(make, n=6):
    return Stack(*[make(nnx.Rngs(i)) for i in range(n)])


def test_the_first_runs_and_the_second_is_traced_for_the_rest():
    f, g, (params, state), reports = sides(stack(Block), X)
    with Runs() as ran:
        _abstract.evaluate(g.apply, params, state, KEY, X)
    assert ran.count == 2
    assert reports[-1].shared == {"Block": 4}
    assert reports[-1].rows[-1].name == "net/modules/5"


def test_under_gradients_too():
    f, g, (params, state), reports = sides(stack(Block), X)
    loss = lambda params, state, x: g.apply(params, state, KEY, x)[0].sum()
    with Runs() as ran:
        jax.jit(jax.grad(loss)).lower(params, state, X)
    assert ran.count == 2


class Outer(nnx.Module):
    """Two equal blocks, in a module that is there many times itself."""

    def __init__(self, rngs):
        self.one, self.two = Block(rngs), Block(rngs)

    def __call__(self, x):
        return self.two(self.one(x))


class SelfCalling(Block):
    def half(self, x):
        return self.linear(self.norm(x))

    def __call__(self, x):
        return self.dropout(self.half(x)) + self.half(x)


class OfOneStream(nnx.Module):
    """Draws from a stream that all have."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=nnx.Rngs(0))
        self.rngs = rngs

    def __call__(self, x):
        y = self.linear(x) * jax.random.normal(self.rngs.noise(), x.shape)
        return y + self.rngs.noise.normal(x.shape)


class Rematted(Block):
    def __call__(self, x):
        return nnx.remat(Block.__call__)(self, x)


class Sowing(Block):
    def __call__(self, x):
        self.sow(nnx.Intermediate, "x", x)
        return super().__call__(x)


class Listed(nnx.Module):
    """Has plain lists, of which NNX says nothing, and a static text."""

    def __init__(self, rngs):
        self.blocks = nnx.List([nnx.Linear(4, 4, rngs=rngs) for _ in range(2)])
        self.text, self.sizes = "text", (1, 2)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x) * len(self.text)
        return x


of_one = nnx.Rngs(noise=7)


@pytest.mark.parametrize(
    ("make", "shared"),
    [
        (Block, {"Block": 4}),
        (lambda rngs: Block(rngs, rate=0.0), {"Block": 4}),
        (Outer, {"Outer": 4}),
        (SelfCalling, {"SelfCalling": 4}),
        (lambda rngs: OfOneStream(of_one), {"OfOneStream": 3}),  # the first draws
        (Rematted, {"Rematted": 4}),
        # Before `nnx.capture` there was, a module that sows has another Variable after.
        (Sowing, {"Sowing": 4 if hasattr(nnx, "capture") else None}),
        (Listed, {"Listed": 4}),
        (lambda rngs: nnx.Linear(4, 4, rngs=rngs), {"Linear": 4}),
    ],
    ids=[
        *("block", "no_rate", "outer", "self_calling", "of_one_stream", "rematted"),
        *("sowing", "listed", "linear"),
    ],
)
def test_shared(make, shared):
    report = assert_same(stack(make), X)
    assert {k: report.shared.get(k) for k in shared} == shared


def test_no_key_is_drawn_that_nobody_uses():
    module = stack(Block)
    module.eval()
    _, g, (params, state), reports = sides(module, X)
    jaxpr = jax.make_jaxpr(lambda p, s, x: g.apply(p, s, KEY, x))(params, state, X)
    assert "random" not in str(jaxpr)
    assert reports[-1].shared["Block"] == 4


def test_without_a_key_it_is_the_error_without_sharing():
    _, g, (params, state), _ = sides(stack(Block), X)
    with pytest.raises(Exception, match="has no key"):
        _abstract.evaluate(g.apply, params, state, None, X)


# What is not shared: right, whatever it does.


class Counting(Block):
    """Counts its calls in an attribute."""

    calls = 0

    def __call__(self, x):
        self.calls += 1
        return super().__call__(x) * self.calls


class Replacing(Block):
    """Has another Variable after each call."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.count = nnx.BatchStat(jnp.zeros([]))

    def __call__(self, x):
        self.count = nnx.BatchStat(self.count[...] + 1.0)
        return super().__call__(x) * self.count[...]


class OfOneLayer(nnx.Module):
    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)


class OfItsClass(OfOneLayer):
    """Asks of what class a submodule is."""

    def __call__(self, x):
        return self.linear(x) if type(self.linear) is nnx.Linear else x * 0.0


def fresh():
    return nnx.Linear(4, 4, rngs=nnx.Rngs(0))


class OfItsStructure(OfOneLayer):
    """Asks whether a submodule is as one that it makes."""

    def __call__(self, x):
        same = jax.tree.structure(self.linear) == jax.tree.structure(fresh())
        return self.linear(x) if same else x * 0.0


class OfItsGraph(OfOneLayer):
    def __call__(self, x):
        same = nnx.split(self.linear)[0] == nnx.split(fresh())[0]
        return self.linear(x) if same else x * 0.0


class Added(OfOneLayer):
    def __call__(self, x):
        return jax.tree.map(jnp.add, self.linear, fresh())(x)


class Giving(nnx.Module):
    """Hands a Variable out, which another module writes."""

    def __init__(self, rngs):
        self.count = nnx.BatchStat(jnp.zeros([]))

    def __call__(self):
        return self.count


class Taking(nnx.Module):
    def __init__(self, rngs):
        self.giving = nnx.List([Giving(rngs) for _ in range(6)])

    def __call__(self, x):
        for giving in self.giving:
            count = giving()
            count[...] += x.sum()
        return x + sum(giving.count[...] for giving in self.giving)


class TakesAModule(nnx.Module):
    """Calls what it is given."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x, other):
        return self.linear(x) + other(x)


class Gives(nnx.Module):
    def __init__(self, rngs):
        self.ones = nnx.List([TakesAModule(rngs) for _ in range(6)])
        self.others = nnx.List([nnx.BatchNorm(4, rngs=rngs) for _ in range(6)])

    def __call__(self, x):
        for one, other in zip(self.ones, self.others, strict=True):
            x = one(x, other)
        return x


NOT_SHARED = [Counting, Replacing, OfItsClass, OfItsStructure, OfItsGraph, Added]


@pytest.mark.parametrize("make", NOT_SHARED)
def test_not_shared_and_right(make):
    report = assert_same(stack(make), X)
    assert make.__name__ not in report.shared


@pytest.mark.parametrize(("make", "left"), [(Taking, Giving), (Gives, TakesAModule)])
def test_what_hands_objects_in_or_out_is_not_shared(make, left):
    report = assert_same(make(nnx.Rngs(0)), X)
    assert left.__name__ not in report.shared


class Ordered(OfOneLayer):
    """Goes over what it is given, as it comes, and gives its results in an order."""

    def __call__(self, **parts):
        y = self.linear(jnp.concatenate(list(parts.values()))[:8])
        return {"b": y, "a": parts["a"]}


class Orders(Stack):
    def __call__(self, x):
        for i, module in enumerate(self.modules):
            parts = module(b=x, a=x * 2.0) if i % 3 else module(a=x, b=x + 1.0)
            x = jnp.concatenate(list(parts.values()))[:8]
        return x


def test_dicts_keep_their_order():
    module = Orders(*[Ordered(nnx.Rngs(i)) for i in range(9)])
    assert assert_same(module, X).shared["Ordered"] == 5


class HoldsAList(OfOneLayer):
    """Hands out a list that it holds, to which the caller adds."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.sizes = nnx.data([1, 2])

    def __call__(self, x):
        return self.linear(x), self.sizes


class HasADefault(OfOneLayer):
    def __call__(self, x, log=[]):  # noqa: B006
        return self.linear(x), log


class Adds(Stack):
    def __call__(self, x):
        for _ in range(2):
            for module in self.modules:
                y, given = module(x)
                if len(given) < 9:
                    given.append(3)
                x = y * len(given)
        return x


class OfAList(OfOneLayer):
    """Writes into a list that a Variable holds, which it gets by another name."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.held = nnx.BatchStat([jnp.zeros([]), jnp.ones([])])

    def __call__(self, x):
        self.held.get_value()[0] += x.sum()
        return self.linear(x) * self.held.get_value()[0]


class Twice(Stack):
    def __call__(self, x):
        return super().__call__(super().__call__(x))


def test_a_list_that_somebody_holds_is_handed_out_itself():
    for make in (HoldsAList, HasADefault):
        module = Adds(*[make(nnx.Rngs(i)) for i in range(6)])
        assert make.__name__ not in assert_same(module, X).shared


def test_what_is_written_into_a_list_of_a_variable():
    assert_same(Twice(*[OfAList(nnx.Rngs(i)) for i in range(6)]), X)


class Tied(nnx.Module):
    """Blocks of which each second has the layer of the one before."""

    def __init__(self, rngs):
        self.blocks = nnx.List([Block(rngs) for _ in range(6)])
        for i in range(1, 6, 2):
            self.blocks[i].norm = self.blocks[i - 1].norm

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return x, [block.norm.mean[...] for block in self.blocks]


def test_what_two_have_is_written_once():
    assert assert_same(Tied(nnx.Rngs(0)), X).shared["Block"] == 4


def test_a_method_that_changed_is_the_one_that_runs(monkeypatch):
    assert_same(stack(Listed), X)
    monkeypatch.setattr(Listed, "__call__", lambda self, x: x * 3.0)
    assert_same(stack(Listed), X)


class DrawsOfBoth(nnx.Module):
    """Draws a key of Haiku, and after it one of a stream."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(4, 4, rngs=rngs)
        self.rngs = nnx.Rngs(noise=0)

    def __call__(self, x):
        x = x + jax.random.normal(hk.next_rng_key(), x.shape)
        return self.linear(x) + jax.random.normal(self.rngs.noise(), x.shape)


class HasOne(nnx.Module):
    def __init__(self, rngs):
        self.one = DrawsOfBoth(rngs)

    def __call__(self, x):
        assert hk.running_init() in (True, False)
        return self.one(x)


@pytest.mark.parametrize("make", [DrawsOfBoth, HasOne])
def test_keys_of_haiku_are_drawn_in_their_order(make):
    def forward(x):
        for i in range(6):
            x = hk_bridge.FlaxModule(make(nnx.Rngs(i)))(x)
        return x + jax.random.normal(hk.next_rng_key(), x.shape)

    def shared(x):
        with hk_bridge.share_traces():
            return forward(x)

    f, g = map(hk.transform_with_state, (forward, shared))
    start = _abstract.evaluate(f.init, KEY, X)
    one, two = (_abstract.trace(h.apply, *start, KEY, X) for h in (g, f))
    assert _program.difference(one.program, two.program) is None
