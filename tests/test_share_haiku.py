"""`share_traces` of Haiku's own modules, and of users' own classes."""

import logging

from catalogue import array
import flax.linen as nn
import haiku as hk
from haiku._src import module
import jax
import jax.numpy as jnp
import jmp
import pytest
from test_share import KEY
from test_share import Runs
from test_share import X

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import _abstract
from hk_bridge import _private
from hk_bridge._proof import program as _program
from hk_bridge.testing import assert_identical

SCALES = hk.initializers.RandomNormal()

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture(autouse=True)
def _promotion():
    """`hk.dropout` multiplies by bools."""
    with jax.numpy_dtype_promotion("standard"):
        yield


class Block(hk.Module):
    """Norm, noise and layers, one of which is built before."""

    def __init__(self, features=4, name=None):
        super().__init__(name=name)
        self.layer, self.parts = hk.Linear(features), [hk.Linear(4)]

    def __call__(self, x):
        logging.getLogger("runs").warning("")
        y = hk.BatchNorm(True, True, 0.9)(x, is_training=True)
        y = hk.dropout(hk.next_rng_key(), 0.5, hk.Linear(4)(y))
        return x + self.parts[0](self.layer(y))


def sides(forward, *args):
    """The transforms without and with sharing, what init gives, and the reports."""
    reports = []

    def shared(*args):
        with hk_bridge.share_traces() as report:
            reports.append(report)
            return forward(*args)

    f, g = map(hk.transform_with_state, (forward, shared))
    return f, g, _abstract.evaluate(f.init, KEY, *args), reports


def assert_same(forward, *args, key=KEY):
    """The program is that without sharing; the report."""
    f, g, (params, state), reports = sides(forward, *args)
    one, two = (_abstract.trace(h.apply, params, state, key, *args) for h in (g, f))
    assert _program.difference(one.program, two.program) is None
    assert _abstract.are_equal(one.output, two.output)
    return reports[-1]


def stack(make, n=8):
    """Calls `n` modules, one after the other."""

    def forward(x):
        for i in range(n):
            x = make(i)(x)
        return x

    return forward


def test_the_first_runs_and_the_second_is_traced_for_the_rest():
    _, g, (params, state), reports = sides(stack(lambda i: Block()), array(8, 4))
    with Runs() as ran:
        _abstract.evaluate(g.apply, params, state, KEY, array(8, 4))
    assert ran.count == 2
    assert reports[-1].shared["Block"] == 6


def of_gradients():
    """The inputs, and a loss with its gradient, without and with sharing."""
    x = array(8, 4)
    f, g, start, reports = sides(stack(lambda i: Block(), 4), x)

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
    assert reports[-1].shared["Block"] == 2


@pytest.mark.weekly
def test_values_of_gradients():
    f, (*_, x), gradients, _ = of_gradients()
    start = jax.jit(f.init)(KEY, x)
    assert_identical(*[jax.jit(gradient)(*start, x) for gradient in gradients])


def test_haikus_own_blocks():
    def forward(x):
        init = hk.initializers.VarianceScaling(1.0)
        for _ in range(4):
            x += hk.MultiHeadAttention(2, 2, w_init=init, model_size=4)(x, x, x)
        return x

    assert assert_same(forward, array(3, 4)).shared["MultiHeadAttention"] == 2


def test_blocks_of_a_resnet():
    def forward(x):
        batch_norm = {"create_scale": True, "create_offset": True, "decay_rate": 0.9}
        group = hk.nets.ResNet.BlockGroup(8, 4, 1, batch_norm, False, True, False)
        return group(x, is_training=True, test_local_stats=False)

    assert assert_same(forward, array(1, 4, 4, 8)).shared["BlockV1"] == 2


def test_nothing_happens_at_init():
    f, g, _, _ = sides(stack(lambda i: Block()), X)
    one, two = (_abstract.trace(h.init, KEY, X) for h in (g, f))
    assert _program.difference(one.program, two.program) is None


class Calls(hk.Module):
    """Computes with what a function gives for it."""

    def __init__(self, function, name=None):
        super().__init__(name)
        self.function = function

    def __call__(self, x):
        return hk.Linear(4)(x) + jnp.float32(self.function(self, x))


def number(text):
    return float(len(text)) + float(ord(text[-1]))


def of_state(module, x):
    count = hk.get_state("count", [], init=jnp.zeros)
    hk.set_state("count", count + x.sum())
    return count


def of_state_elsewhere(module, x):
    with hk.name_scope("below"):
        return of_state(module, x)


def of_keys(module, x):
    hk.reserve_rng_keys(3)
    keys = [hk.next_rng_key(), *hk.next_rng_keys(2), hk.maybe_next_rng_key()]
    return sum(jax.random.normal(key) for key in keys)


def of_a_key_of_its_own(module, x):
    with hk.with_rng(KEY):
        return jax.random.normal(hk.next_rng_key())


def of_remat(module, x):
    return hk.remat(lambda x: hk.Linear(4)(x) + of_keys(module, x))(x)


def of_attribute(module, x):
    module.calls = getattr(module, "calls", 0) + 1
    return module.calls


def of_list(module, x):
    module.seen = [*getattr(module, "seen", []), 1]
    return len(module.seen)


def of_keys_inside(module, x):
    return jax.random.normal(hk.maybe_get_rng_sequence_state()[0])


def of_a_flax_module(module, x):
    return FlaxModule(nn.Dense(4), name="flax")(x)


def of_a_policy(module, x):
    return 1.0 if hk.mixed_precision.current_policy() is None else 2.0


ATTRIBUTE = "name"
where = hk.experimental.current_name
LOOKS = {
    "unsaid": lambda m, x: number(getattr(m, ATTRIBUTE)),
    "alias": lambda m, x: number(where()),
    "name": lambda m, x: number(m.name),
    "module_name": lambda m, x: number(m.module_name),
    "getattr": lambda m, x: number(getattr(m, "name")),  # noqa: B009
    "current_name": lambda m, x: number(hk.experimental.current_name()),
    "params": lambda m, x: sum(map(jnp.sum, jax.tree.leaves(hk.get_params()))),
    "state": of_state,
    "state_elsewhere": of_state_elsewhere,
    "all_state": lambda m, x: len(hk.get_current_state()) + of_state(m, x),
    "initial_state": lambda m, x: len(hk.get_initial_state()) + of_state(m, x),
    "params_dict": lambda m, x: len(m.params_dict()),
    "keys": of_keys,
    "key_of_its_own": of_a_key_of_its_own,
    "remat": of_remat,
    "attribute": of_attribute,
    "list": of_list,
    "keys_inside": of_keys_inside,
    "flax": of_a_flax_module,
    "policy": of_a_policy,
    "running_init": lambda m, x: hk.running_init(),
    "parameter": lambda m, x: hk.get_parameter("w", [1, 4], init=SCALES),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_code_looks_at(look):
    assert_same(stack(lambda i: Calls(look)), array(3, 4))


def twice(x):
    for _ in range(6):
        block = Block()
        x = block(block(x))
    return x


def calls_kept(x):
    for _ in range(6):
        module = Calls(of_attribute)
        x = module(module(x))
    return x


class Ordered(hk.Module):
    """Goes over what it is given, as it comes, and gives its results in an order."""

    def __call__(self, parts):
        y = hk.Linear(4)(jnp.concatenate(list(parts.values())))
        return {"b": y[:2], "a": parts["a"]}


def in_order(x):
    x = x[:2]
    for _ in range(6):
        x = jnp.concatenate(list(Ordered()({"b": x, "a": x * 2.0}).values()))[:2]
    return x


class Tied(hk.Module):
    """Uses a module from elsewhere."""

    def __init__(self, layer, name=None):
        super().__init__(name)
        self.layer = layer

    def __call__(self, x):
        return hk.Linear(4)(self.layer(x))


def tied(x):
    layers = [hk.Linear(4), hk.Linear(4)]
    for i in range(6):
        x = Tied(layers[i % 2])(x)
    return x


def tied_by_closure(x):
    layers = [hk.Linear(4), hk.Linear(4)]
    for i in range(6):
        x = Calls(lambda m, x, layer=layers[i % 2]: layer(x))(x)
    return x


def tied_by_argument(x):
    layers = [hk.Linear(4), hk.Linear(4)]

    class Uses(hk.Module):
        def __call__(self, layer, x):
            return hk.Linear(4)(layer(x))

    for i in range(6):
        x = Uses()(layers[i % 2], x)
    return x


class Makes(hk.Module):
    def __call__(self, x):
        return hk.Linear(4)


def returned(x):
    for _ in range(6):
        x = Makes()(x)(x)
    return x


class Sub(Block):
    def __call__(self, x):
        return super().__call__(x) + self.more(x)

    def more(self, x):
        return hk.Linear(4)(x)


def methods(x):
    for _ in range(6):
        block = Sub()
        x = block.more(block(x))
    return x


def tables(x):
    sizes = []
    for _ in range(6):
        block = Block()
        x = block(x)
        sizes.append(len(block.params_dict()))
    return x * sum(sizes)


def under_a_getter(x):
    def double(next_getter, value, context):
        return next_getter(value) * len(context.full_name)

    with hk.custom_getter(double):
        return stack(lambda i: Block())(x)


def under_a_policy(x):
    policies = [jmp.get_policy(f"compute={kind}") for kind in ("full", "half")]
    for i in range(6):
        with hk.mixed_precision.push_policy(Block, policies[i % 2]):
            x = Block()(x).astype(jnp.float32)
    hk.mixed_precision.clear_policy(Block)
    return x


def under_a_name_scope(x):
    for i in range(6):
        with hk.name_scope(f"scope_{i}"):
            x = Block()(x)
    return x


def under_an_interceptor(x):
    def scaled(run, args, kwargs, context):
        y = run(*args, **kwargs)
        return y if y is None else y * len(context.module.module_name)

    with hk.intercept_methods(scaled):
        return stack(lambda i: hk.Sequential([hk.Linear(4)]))(x)


def mixed(x):
    for _ in range(6):
        x = FlaxModule(nn.Dense(4))(Block()(x))
    return x


class Box:
    flag = 1


class Gives(hk.Module):
    """Writes into what it is given, or gives what others may write."""

    def __init__(self, do, name=None):
        super().__init__(name)
        self.do = do

    def __call__(self, x, given):
        return hk.Linear(4)(x), self.do(x, given)


def given(do, make, write):
    """Gives each module a thing, and writes into what it gives."""

    def forward(x):
        for i in range(6):
            thing = make(x)
            x, out = Gives(do)(x, thing)
            x = x * write(thing, out, i)
        return x

    return forward


def do_mark(x, box):
    box.flag = 2


def do_put(x, cache):
    cache["x"] = 2 * x


def write_flag(_, box, i):
    box.flag += i
    return box.flag


def write_set(_, numbers, i):
    numbers.add(i)
    return len(numbers)


def write_list(given, numbers, i):
    numbers.append(i)
    return len(given)


def texts(x):
    for i in range(6):
        module = Calls(lambda m, x: number(repr(m)[:-2]), name=f"a_{10 * i}")
        x = module(x)
    return x


FORWARDS = {
    "object_written": given(do_mark, lambda x: Box(), lambda box, _, i: box.flag),
    "dict_written": given(do_put, lambda x: {"x": x}, lambda d, _, i: d["x"]),
    "object_out": given(lambda x, _: Box(), lambda x: x, write_flag),
    "set_out": given(lambda x, _: {1}, lambda x: x, write_set),
    "list_through": given(lambda x, y: y, lambda x: [x], write_list),
    "texts": texts,
    "keys_counted": hk.experimental.optimize_rng_use(stack(lambda i: Block())),
    "twice": twice,
    "calls_kept": calls_kept,
    "tied": tied,
    "tied_by_closure": tied_by_closure,
    "in_order": in_order,
    "tied_by_argument": tied_by_argument,
    "returned": returned,
    "methods": methods,
    "tables": tables,
    "getter": under_a_getter,
    "name_scope": under_a_name_scope,
    "interceptor": under_an_interceptor,
    "mixed": mixed,
    "in_remat": lambda x: hk.remat(stack(lambda i: Block()))(x),
    "each_in_remat": stack(lambda i: hk.remat(Block())),
    "layer_stack": lambda x: hk.experimental.layer_stack(2)(
        stack(lambda i: hk.Sequential([hk.Linear(4), jax.nn.relu]))
    )(x),
    "mlp": stack(lambda i: hk.nets.MLP([4, 4])),
    "sequential": stack(lambda i: hk.Sequential([hk.Linear(4), jnp.tanh])),
    "lstm": lambda x: hk.dynamic_unroll(
        hk.DeepRNN([hk.LSTM(4) for _ in range(4)]),
        x[:, None],
        hk.DeepRNN([hk.LSTM(4) for _ in range(4)]).initial_state(1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("forward", FORWARDS.values(), ids=FORWARDS)
def test_forwards(forward):
    assert_same(forward, array(3, 4))


def test_without_a_key():
    assert_same(stack(lambda i: hk.nets.MLP([4, 4])), array(3, 4), key=None)


def test_without_a_transform_around():
    """`share_traces` may be around `apply`, too."""
    f, _, (params, state), _ = sides(stack(lambda i: Block()), array(8, 4))
    with hk_bridge.share_traces() as report, Runs() as ran:
        _abstract.evaluate(f.apply, params, state, KEY, array(8, 4))
    assert ran.count == 2
    assert report.shared["Block"] == 6


def of_a_class_inside(x):
    """A policy of a class that the blocks use, on and off."""
    for i in range(12):
        if i % 4 < 2:
            x = Block()(x)
        else:
            with hk.mixed_precision.push_policy(hk.Linear, HALF):
                x = Block()(x).astype(jnp.float32)
    return x


HALF = jmp.get_policy("compute=half,output=float32")


def test_policies_in_force():
    assert_same(under_a_policy, array(3, 4))
    assert assert_same(of_a_class_inside, array(3, 4)).shared["Block"] == 8


def test_policies_of_before():
    """Haiku's interceptor for policies stays for ever."""
    with hk.mixed_precision.push_policy(hk.Linear, HALF):
        assert module.interceptor_stack
    assert assert_same(stack(lambda i: Block()), X).shared["Block"] == 6


def test_where_nothing_tells_of_policies_nothing_is_shared(monkeypatch):
    with hk.mixed_precision.push_policy(hk.Linear, HALF):
        assert module.interceptor_stack
    symbol = "haiku._src.mixed_precision:_thread_local_state._cls_policy"
    monkeypatch.setattr(_private, "hidden", {symbol})
    assert not assert_same(stack(lambda i: Block()), X).shared


class Keeps(hk.Module):
    """Draws keys, and returns a list that it holds: it does not run apart."""

    def __init__(self, name=None):
        super().__init__(name=name)
        self.list = [1]

    def __call__(self, x):
        noise = jax.random.normal(hk.next_rng_key(), x.shape)
        return hk.Linear(4)(x) + noise, self.list


class AfterRemat(hk.Module):
    """Has a lifted transform take keys as they are, and modules after it."""

    def __call__(self, x):
        x = hk.remat(lambda x: x + jax.random.normal(hk.next_rng_key(), x.shape))(x)
        for _ in range(4):
            x, _ = Keeps()(x)
        return x


def test_keys_are_given_back_after_a_lifted_transform():
    assert_same(stack(lambda i: AfterRemat()), array(3, 4))
