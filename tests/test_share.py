"""`share_traces`: the same program and the same values, traced once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
import dataclasses
import functools
import gc
import logging
import operator
import sys
from typing import Any
import weakref

from catalogue import Noise
from catalogue import Norm
from catalogue import array
from flax.core import FrozenDict
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
import jmp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import _abstract
from hk_bridge import _flax
from hk_bridge._flax import private
from hk_bridge._proof import program as _program

pytestmark = pytest.mark.usefixtures("eager")
KEY = jax.random.key(0)
X = array(2, 4)


def thrice(make, args, kwargs, shared):
    """A transform that applies three equal modules to equal inputs."""

    def forward(args, rngs):
        def all_of_them():
            modules = [FlaxModule(make(), name=f"net_{i}") for i in range(3)]
            return [net(*args, rngs=rngs, **kwargs) for net in modules]

        if not shared:
            return all_of_them()
        with hk_bridge.share_traces():
            return all_of_them()

    return hk.transform_with_state(forward)


class Runs(logging.Handler):
    """Counts the runs that modules log: a counter of theirs would tell them apart."""

    def __enter__(self):
        self.count = 0
        logging.getLogger("runs").addHandler(self)
        return self

    def __exit__(self, *error):
        logging.getLogger("runs").removeHandler(self)

    def emit(self, record):
        self.count += 1


class Counted(nn.Module):
    features: int = 4
    scale: object = 1.0

    @nn.compact
    def __call__(self, x, power=1):
        logging.getLogger("runs").warning("")
        return nn.Dense(self.features)(x) * self.scale**power


def zeros(spec):
    return jnp.zeros(spec.shape, spec.dtype)


def runs(calls, jit=True):
    """How often the code runs when `calls(net)` are applied in one transform."""

    def forward(x):
        with hk_bridge.share_traces():
            return calls(x)

    f = hk.transform_with_state(forward)
    params, state = _abstract.evaluate(f.init, KEY, X)
    with Runs() as ran:
        if jit:
            _abstract.evaluate(f.apply, params, state, None, X)
        else:
            f.apply(*jax.tree.map(zeros, (params, state)), None, X)
    return ran.count


def test_the_first_runs_and_the_second_is_traced_for_the_rest():
    assert runs(lambda x: [FlaxModule(Counted())(x) for _ in range(10)]) == 2


DIFFERENT = {
    "configuration": lambda x: [FlaxModule(Counted(n))(x) for n in range(1, 5)],
    "shape": lambda x: [FlaxModule(Counted())(x[:, :n]) for n in range(1, 5)],
    "dtype": lambda x: [
        FlaxModule(Counted(), name="a")(x),
        FlaxModule(Counted(), name="b")(x.astype(jnp.int32).astype(jnp.float16)),
    ],
    "static_argument": lambda x: [FlaxModule(Counted())(x, power=n) for n in range(4)],
    "no_hash": lambda x: [
        FlaxModule(Counted(scale=jnp.ones(4)[None]))(x) for _ in range(4)
    ],
    "tracer": lambda x: [FlaxModule(Counted(scale=x[:1]))(x) for _ in range(4)],
    "mutable": lambda x: [FlaxModule(Counted())(x, mutable=[]) for _ in range(4)],
    "captured": lambda x: [
        FlaxModule(Counted())(x, capture_intermediates=True) for _ in range(4)
    ],
}


@pytest.mark.parametrize("calls", DIFFERENT.values(), ids=DIFFERENT)
def test_what_differs_is_not_shared(calls):
    with jax.numpy_dtype_promotion("standard"):
        assert runs(calls) == len(jax.eval_shape(hk.transform(calls).init, KEY, X))


def test_sharing_steps_aside_outside_of_jit():
    assert runs(lambda x: [FlaxModule(Counted())(x) for _ in range(3)], jit=False) == 3


def test_where_nothing_tells_what_is_traced_nothing_is_shared(monkeypatch):
    monkeypatch.setattr(private, "_Staged", None)
    assert runs(lambda x: [FlaxModule(Counted())(x) for _ in range(3)]) == 3


def test_what_jax_traces_anew_is_the_present_module():
    """An object that changed is equal to what others were, and no longer to itself."""

    def forward(x):
        box = Unset().scaled(1)
        modules = [Ops(Unset().scaled(1)), Ops(box), Ops(Unset().scaled(1))]
        y = [FlaxModule(module)(x) for module in modules]
        box.scale = 2
        with jax.default_matmul_precision("float32"):
            return y + [FlaxModule(modules[i])(x) for i in (0, 1, 2)]

    with jax.numpy_dtype_promotion("standard"):
        assert_same(forward, jnp.arange(1, 4))


def test_sharing_steps_aside_for_hooks():
    def interceptor(next_fun, args, kwargs, context):
        return next_fun(*args, **kwargs)

    def intercepted(x):
        with hk.intercept_methods(interceptor):
            return [FlaxModule(Counted())(x) for _ in range(3)]

    def created(x):
        with hk.custom_creator(lambda next_creator, *args: next_creator(*args[:3])):
            return [FlaxModule(Counted())(x) for _ in range(3)]

    def intercepted_in_flax(x):
        with nn.intercept_methods(interceptor):
            return [FlaxModule(Counted())(x) for _ in range(3)]

    assert runs(intercepted) == runs(created) == runs(intercepted_in_flax) == 3


class Ops(nn.Module):
    """Applies the operations of `config`, in order."""

    config: Any

    def __call__(self, x):
        if isinstance(self.config, Mapping):
            for name, value in self.config.items():
                x = x + value if name == "add" else x * value
            return x
        return x * getattr(self.config, "scale", self.config)


@dataclasses.dataclass(frozen=True)
class Config:
    scale: Any


@dataclasses.dataclass
class Unset:
    """A field that has no value, and an attribute that is no field."""

    unset: Any = dataclasses.field(init=False)

    def scaled(self, scale):
        self.scale = scale
        return self


class Mutable:
    scale = 1.0

    def __getitem__(self, key):
        return self.scale


def says(module):
    return module.size, getattr(module, "size", None), getattr(nn, module.act)


def says_how_it_begins(module):
    return [getattr(module, f"block_{i}") for i in range(3)]


def says_a_keyword(module, name=None):
    return module.size(name=name), nn.Dense(3, name="size")


def of_a_row_that_is_a_keyword_too(module):
    return [(module.size(name=1), getattr(module, by)) for by in ("name",)]


def of_a_variable(module, by="name"):
    return getattr(module, by)


def of_a_row(module):
    return [operator.attrgetter for _ in ("name",)]


def of_a_text_filled_in(module, by="me"):
    return getattr(module, f"na{by}"), getattr(module, "na%s" % by)  # noqa: UP031


def of_a_format(module):
    return "{0.name}".format(module)  # noqa: UP030, UP032


def of_a_pattern(module):
    match module:
        case nn.Module(name=found):
            return found


def of_a_partial(module, by="size"):
    return list(map(functools.partial(getattr, module), [by]))


def of_a_getter(module, by="size"):
    return operator.attrgetter(by)(module)


another_name = nn.Module.get_variable
yet_another = getattr
REACHES = [
    of_a_variable, of_a_row, of_a_row_that_is_a_keyword_too, of_a_text_filled_in,
    of_a_format, of_a_pattern, of_a_partial, of_a_getter,
    lambda module: another_name(module), lambda module, by: yet_another(module, by),
]  # fmt: skip


def test_code_that_may_reach_a_name_has_no_key():
    watched = frozenset({"name", "get_variable"})
    for function in (says, says_how_it_begins, says_a_keyword):
        assert _flax.key_of(function, watched=watched) is not None
    for function in REACHES:
        assert _flax.key_of(function) is not None
        assert _flax.key_of(function, watched=watched) is None, function


def mutated():
    config = Mutable()
    for i in range(6):
        config.scale = float(i)
        yield Ops(config)


class Calls(nn.Module):
    """Adds what a function gives."""

    function: Any

    def __call__(self, x):
        return x + self.function()


class Text(str):
    scale = 1


def text(scale):
    made = Text("same")
    made.scale = scale
    return made


def doubled(function):
    @functools.wraps(function)
    def run(*args):
        return 2 * function(*args)

    return run


class Number:
    """Gives a number, in several ways."""

    def __init__(self, number):
        self.number = number

    def get(self):
        return self.number

    @doubled
    def get_double(self):
        return self.number


def constant():
    return WIDTH


def through_others():
    return [constant() for _ in range(2)][1]


def of_settings():
    return SETTINGS.scale


def of_a_class():
    return Mutable.scale


def of_a_module():
    return THIS.WIDTH


def imported():
    from test_share import WIDTH

    return WIDTH


def of_a_policy():
    policy = hk.mixed_precision.get_policy(hk.Linear)
    return 0 if policy is None else len(str(policy.compute_dtype))


def by_default(number=0):
    return number


def by_attribute():
    return by_attribute.number


def by_a_hidden_way():
    return globals()["WIDTH"]


WIDTH = 0
THIS = sys.modules[__name__]
SETTINGS = Mutable()


class OfClass(nn.Module):
    number = 0

    def __call__(self, x):
        return x + self.number


class OfProperty(nn.Module):
    @property
    def number(self):
        return WIDTH

    def __call__(self, x):
        return x + self.number


class Inside(nn.Module):
    @nn.compact
    def __call__(self, x):
        return OfClass()(x)


def set_all(number):
    """Changes all that the functions and classes above look at."""
    global WIDTH
    WIDTH = OfClass.number = SETTINGS.scale = Mutable.scale = number
    by_default.__defaults__ = (number,)
    hk.mixed_precision.clear_policy(hk.Linear)
    if number:
        policy = jmp.get_policy(f"compute={('', 'bfloat16', 'half', 'full')[number]}")
        hk.mixed_precision.set_policy(hk.Linear, policy)
    by_attribute.number = number


def at_each(make):
    """Modules made after each change, three of a kind."""

    def modules():
        for number in (1, 1, 1, 2, 2, 2, 1, 3):
            set_all(number)
            yield make(number)
        set_all(0)

    return modules


CHANGED = {
    "bound_builtin": lambda n: Calls(functools.partial({"a": n}.get, "a")),
    "array_method": lambda n: Calls(np.full([], n).copy),
    "array": lambda n: Ops(np.full([], n)),
    "text": lambda n: Ops(text(n)),
    "bound_method": lambda n: Calls(Number(n).get),
    "wrapped_method": lambda n: Calls(Number(n).get_double),
    "wrapped": lambda n: Calls(doubled(lambda: n)),
    "global": lambda n: Calls(constant),
    "global_of_a_callee": lambda n: Calls(through_others),
    "global_object": lambda n: Calls(of_settings),
    "global_class": lambda n: Calls(of_a_class),
    "global_module": lambda n: Calls(of_a_module),
    "imported": lambda n: Calls(imported),
    "hidden": lambda n: Calls(by_a_hidden_way),
    "defaults": lambda n: Calls(by_default),
    "attribute": lambda n: Calls(by_attribute),
    "jitted": lambda n: Calls(jax.jit(constant)),
    "checkpoint": lambda n: Calls(jax.checkpoint(lambda: n)),
    "class_attribute": lambda n: OfClass(),
    "class_attribute_inside": lambda n: Inside(),
    "class_attribute_under_remat": lambda n: nn.remat(Inside)(),
    "property": lambda n: OfProperty(),
    "policy": lambda n: Calls(of_a_policy),
    "dict": lambda n: Ops({"add": n, "mul": 2} if n % 2 else {"mul": 2, "add": n}),
}  # fmt: skip


EQUAL = {
    **{name: at_each(make) for name, make in CHANGED.items()},
    "order": lambda: [
        *[Ops(FrozenDict(add=1.0, mul=2.0))] * 3,
        *[Ops(FrozenDict(mul=2.0, add=1.0))] * 3,
    ],
    "zero": lambda: [*[Ops(0.0)] * 3, *[Ops(-0.0)] * 3],
    "dataclass": lambda: [*[Ops(Config(1))] * 3, *[Ops(Config(1.0))] * 3],
    "attribute": lambda: [Ops(Unset().scaled(i)) for i in (1, 1, 1, 2, 2)],
    "type": lambda: [*[Ops(FrozenDict(mul=1))] * 3, *[Ops(FrozenDict(mul=1.0))] * 3],
    "mutated": mutated,
}  # fmt: skip


@pytest.mark.parametrize("modules", EQUAL.values(), ids=EQUAL)
def test_what_is_equal_and_not_the_same_is_not_shared(modules):
    def forward(x):
        return [FlaxModule(module)(x) for module in modules()]

    with jax.numpy_dtype_promotion("standard"):
        assert_same(forward, jnp.arange(1, 4))


def test_rules_for_logical_axes_are_part_of_what_is_shared():
    class Constrained(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.with_logical_constraint(x, ("batch", None))

    def forward(x):
        with hk_bridge.share_traces():
            for axis in ("a", "a", "b", "b", None, None):
                with nn.logical_axis_rules([("batch", axis)]):
                    x = FlaxModule(Constrained())(x)
        return x

    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    with jax.set_mesh(mesh):
        jaxpr = jax.make_jaxpr(hk.transform(forward).apply)({}, None, X)
    specs = [e.params["sharding"].spec for e in jaxpr.eqns]
    assert specs == [P(axis, None) for axis in ("a", "a", "b", "b", None, None)]


def test_getters_reach_shared_modules():
    def forward(x):
        def double(next_getter, value, context):
            return next_getter(2.0 * value)

        with hk.custom_getter(double):
            return [FlaxModule(Norm(), name=f"n{i}")(x) for i in range(4)]

    assert_same(forward, X)


def test_sharing_ends_with_the_block_and_keeps_nothing_alive():
    seen = []

    def forward(x):
        with hk_bridge.share_traces():
            for i in range(3):
                x = FlaxModule(Noise(), name=f"n{i}")(x)
        seen.append(weakref.ref(x))
        return x

    f, x = hk.transform(forward), X[:, :8]
    params = _abstract.evaluate(f.init, KEY, x)
    with jax.checking_leaks():
        _abstract.evaluate(f.apply, params, KEY, x)
    gc.collect()
    assert seen[-1]() is None


def test_sharing_is_of_one_thread():
    def work(shared):
        f = thrice(Noise, (X,), {}, shared)
        params, state = _abstract.evaluate(f.init, KEY, (X,), None)
        return _abstract.trace(f.apply, params, state, KEY, (X,), None).program

    expected = work(False)
    with ThreadPoolExecutor(4) as pool:
        for program in pool.map(work, [True, False, True, True]):
            assert _program.difference(program, expected) is None


def test_blocks_nest():
    def forward(x):
        with hk_bridge.share_traces():
            y = [FlaxModule(Counted())(x) for _ in range(3)]
            with hk_bridge.share_traces():
                y += [FlaxModule(Counted())(x) for _ in range(3)]
            return y + [FlaxModule(Counted())(x) for _ in range(3)]

    f = hk.transform(forward)
    params = _abstract.evaluate(f.init, KEY, X)
    with Runs() as ran:
        _abstract.evaluate(f.apply, params, None, X)
    assert ran.count == 4


def test_an_error_in_a_shared_module_is_flaxs():
    def forward(x):
        with hk_bridge.share_traces():
            return [FlaxModule(nn.Dense(3), name=f"n{i}")(x) for i in range(3)]

    f = hk.transform(forward)
    params = _abstract.evaluate(f.init, KEY, X)
    del params["n2"]["bias"]
    with pytest.raises(nn.module.errors.ScopeParamNotFoundError) as caught:
        _abstract.evaluate(f.apply, params, None, X)
    assert "params['n2']['bias']" in "".join(caught.value.__notes__)


class Adopts(nn.Module):
    """Keeps the names of modules that it is given, on which their keys depend."""

    preserve_adopted_names = True
    inner: nn.Module

    def __call__(self, x):
        return self.inner(x)


def assert_same(forward, *args):
    """The program of `forward` is the same without and with sharing."""

    def shared(*args):
        with hk_bridge.share_traces():
            return forward(*args)

    traced = []
    for f in map(hk.transform_with_state, (shared, forward)):
        params, state = _abstract.evaluate(f.init, KEY, *args)
        traced.append(_abstract.trace(f.apply, params, state, KEY, *args))
    one, two = traced
    assert _program.difference(one.program, two.program) is None
    assert _abstract.are_equal(one.output, two.output)


def test_submodules_of_other_names_have_other_keys():
    def forward(x):
        def drop(name):
            inner = nn.Dropout(0.5, deterministic=False, name=name)
            return FlaxModule(Adopts(inner), name="net")(x)

        return [drop(name) for name in ("a", "a", "b", "b")]

    assert_same(forward, array(8, 8))


class Through(nn.Module):
    function: object

    def __call__(self, x):
        return self.function(x)


def test_what_closes_over_a_bound_module_is_not_shared():
    variables = [{"params": {"scale": jnp.full([4], i + 1.0)}} for i in range(4)]

    def forward(x):
        def use(bound):
            return FlaxModule(Through(lambda x: bound(x)), name="net")(x)

        norm = nn.RMSNorm()
        return [use(norm.bind(v)) for v in variables]

    assert_same(forward, X)


# What is right without sharing is right with it.


class Fused(nn.Module):
    @nn.compact
    def __call__(self, q, kv):
        y = nn.Dense(4)(q)
        return 2.0 * y if q is kv else y + kv


class Hyper(nn.Module):
    """Its output holds an array where JAX sees no leaf."""

    @nn.compact
    def __call__(self, x):
        w = nn.Dense(4)(x)
        return lambda z: z * w


class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.Dense(4)(x)
        return y, y


class Precise(nn.Module):
    """Looks at something that JAX, too, traces anew for."""

    @nn.compact
    def __call__(self, x):
        count = self.variable("counts", "n", jnp.zeros, ())
        y = nn.Dense(4)(x)
        if jax.config.jax_default_matmul_precision == "float32":
            return {"high": y}
        count.value += 1.0
        return {"low": y}


class Writes(nn.Module):
    """Writes into an argument."""

    @nn.compact
    def __call__(self, x, cache):
        cache["y"] = nn.Dense(4)(x)
        return x


class Late(nn.Module):
    """Draws a key after a lifted transform, which takes those that are there."""

    asks: bool

    @nn.compact
    def __call__(self, x):
        x = nn.remat(nn.Dropout)(0.5, deterministic=False)(x)
        x *= jax.random.normal(self.make_rng("noise"), x.shape)
        return x + float(hk.running_init()) if self.asks else x


def written(net, x, i):
    cache = {"y": x}
    return net(x, cache) + cache["y"]


def precisely(net, x, i):
    with jax.default_matmul_precision("float32" if i % 2 else "bfloat16"):
        return net(x)


def with_linear(module, x):
    return hk.Linear(4)(module(x))


SCALES = hk.initializers.RandomNormal()


def with_parameter(module, x):
    return module(x) * hk.get_parameter("scale", [1, 4], init=SCALES)


def with_key(module, x):
    return module(x) * jax.random.normal(hk.next_rng_key(), [1, 4])


def with_a_key_if_any(module, x):
    key = hk.maybe_next_rng_key()
    return module(x) if key is None else with_key(module, x)


def with_state(module, x):
    hk.set_state("mean", x.mean())
    return module(x)


def with_state_there(module, x):
    return module(x) + hk.get_state("seen", [], init=jnp.ones)


def with_names(module, x):
    return module(x) * len(hk.experimental.current_name())


def with_all_params(module, x):
    return module(x) + sum(p.sum() for p in jax.tree.leaves(hk.get_params()))


def with_all_state(module, x):
    hk.get_state("seen", [], init=jnp.ones)
    trees = (hk.get_current_state(), hk.get_initial_state())
    return module(x) + sum(jax.tree.leaves(trees))


def with_params_if_any(module, x):
    try:
        params = hk.get_params()
    except Exception:
        params = {}
    return module(x) + len(params)


def with_running_init(module, x):
    return module(x) + float(hk.running_init())


def with_a_module_built(module, x):
    return module(x) + len(hk.Module(name="built").module_name)


def with_a_name_scope(module, x):
    with hk.name_scope("scope"):
        return with_parameter(module, x)


def with_a_bridged_module(module, x):
    return FlaxModule(nn.Dense(4), name="inner")(module(x))


def with_keys_reserved(module, x):
    hk.reserve_rng_keys(2)
    return with_key(module, x)


def with_a_part_under_remat(module, x):
    return hk.remat(lambda x: x * hk.get_parameter("s", [], init=jnp.ones))(module(x))


def with_a_cond(module, x):
    return hk.cond(x.sum() > 0, lambda x: x, lambda x: -x, module(x))


def with_a_policy(module, x):
    policy = hk.mixed_precision.current_policy()
    return module(x) + float(policy is None)


def with_a_transform_inside(module, x):
    f = hk.transform(lambda x: hk.Linear(4)(x))
    key = jax.random.key(0)
    return f.apply(f.init(key, x), None, module(x))


def by_method(method):
    return nn.Dense(4), lambda net, x, i: net(x, method=method)


RIGHT = {
    "one_array_or_two": (Fused(), lambda net, x, i: net(x, x + i if i % 2 else x)),
    "one_output_twice": (Twice(), lambda net, x, i: net(x)[0] is net(x)[1]),
    "hidden_outputs": (Hyper(), lambda net, x, i: net(x)(2.0)),
    "contexts": (Precise(), precisely),
    "key_after_remat": (Late(asks=False), lambda net, x, i: net(x)),
    "key_after_remat_and_haiku": (Late(asks=True), lambda net, x, i: net(x)),
    "written": (Writes(), written),
    "linear": by_method(with_linear),
    "parameter": by_method(with_parameter),
    "key": by_method(with_key),
    "maybe_key": by_method(with_a_key_if_any),
    "state": by_method(with_state),
    "state_there": by_method(with_state_there),
    "names": by_method(with_names),
    "all_params": by_method(with_all_params),
    "all_state": by_method(with_all_state),
    "params_if_any": by_method(with_params_if_any),
    "running_init": by_method(with_running_init),
    "module_built": by_method(with_a_module_built),
    "name_scope": by_method(with_a_name_scope),
    "bridged_module": by_method(with_a_bridged_module),
    "keys_reserved": by_method(with_keys_reserved),
    "remat": by_method(with_a_part_under_remat),
    "cond": by_method(with_a_cond),
    "policy": by_method(with_a_policy),
    "transform_inside": by_method(with_a_transform_inside),
}


@pytest.mark.parametrize(("module", "call"), RIGHT.values(), ids=RIGHT)
def test_what_is_right_without_sharing_is_right_with_it(module, call):
    def forward(x):
        nets = [FlaxModule(module, name=f"net_{i}") for i in range(6)]
        return [call(net, x, i) for i, net in enumerate(nets)]

    assert_same(forward, X)


@pytest.mark.parametrize("jit", [True, False])
def test_a_module_without_inputs_steps_aside_outside_of_jit(jit):
    class Draws(nn.Module):
        def __call__(self):
            logging.getLogger("runs").warning("")
            return jax.random.normal(self.make_rng("noise"), [4])

    def forward():
        with hk_bridge.share_traces():
            return [FlaxModule(Draws())() for _ in range(5)]

    apply = hk.transform(forward).apply
    with Runs() as ran:
        (jax.jit(apply) if jit else apply)({}, KEY)
    assert ran.count == (2 if jit else 5)
