"""What is known to be a value, and what is not."""

import collections
import dataclasses
import enum
import functools
import gc
import types
from typing import Any
from typing import NamedTuple
import weakref

from boxes import Box
import flax
from flax.core import FrozenDict
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np
import pytest

from hk_bridge import FlaxModule
from hk_bridge import _boxes
from hk_bridge._flax import shapes
from hk_bridge._flax.known import key_of

KEY = jax.random.key(0)
X = jnp.ones([2, 4])


class Pair(NamedTuple):
    a: Any
    b: Any


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Frozen:
    a: Any = 1


@dataclasses.dataclass
class Open:
    a: Any = 1


class Plain:
    def __init__(self, a):
        self.a = a

    def __call__(self, key):
        return jnp.ones([self.a])

    def method(self):
        return self.a


class Slotted:
    __slots__ = ("a",)


class Finding:
    def __getattr__(self, name):
        return 1


class Text(str):
    """May have attributes."""


class Odd(float):
    """May have others."""


class Keeping(nn.Module):
    a: Any = 1


@jax.custom_jvp
def with_derivative(x):
    return x


def recursive(n):
    return recursive(n - 1) if n else 0


def ping(n):
    return pong(n)


def pong(n):
    return ping(n)


def nowhere():
    return not_there  # noqa: F821


def counting():
    global COUNT
    COUNT = COUNT + 1
    return COUNT


def of_an_array():
    return ARRAY


def of_a_dict():
    return DICT["a"]


def of_an_object():
    return OBJECT.a


def of_a_module_of_ours():
    return hk_bridge_tests


def writes_a_class():
    Plain.count = 1


def constant():
    return COUNT, NAMES


COUNT, NAMES, ARRAY, DICT = 0, ("a", 1.0), np.ones([2]), {"a": 1}
OBJECT = Plain(1)
hk_bridge_tests = types.ModuleType("ours")


def closure(value):
    return lambda: value


def nested(value):
    def outer():
        value2 = 1
        return lambda: (value, value2)

    return outer


VALUES = {
    **{repr(v): lambda v=v: v for v in (0, 1, True, False, 0.0, -0.0, 1.0, 1j)},
    **{repr(v): lambda v=v: v for v in (None, ..., "1", b"1", float("nan"))},
    "infinity": lambda: float("inf"),
    "tuple": lambda: (1, "a"),
    "list": lambda: [1, "a"],
    "float_tuple": lambda: (1.0, "a"),
    "nested_tuple": lambda: ((1, "a"),),
    "dict": lambda: {"a": 1, "b": 2},
    "reordered": lambda: {"b": 2, "a": 1},
    "frozen_dict": lambda: FrozenDict(a=1, b=2),
    "set": lambda: frozenset({1}),
    "slice": lambda: slice(1),
    "dtype": lambda: np.dtype("float32"),
    "scalar_type": lambda: jnp.float32,
    "numpy_type": lambda: np.float32,
    "numpy_number": lambda: np.float32(1),
    "wide_number": lambda: np.float64(1),
    "named": lambda: Pair(1, 2),
    "enum": lambda: Color.RED,
    "precision": lambda: jax.lax.Precision.HIGHEST,
    "spec": lambda: P("a", None),
    "other_spec": lambda: P("a"),
    "treedef": lambda: jax.tree.structure({"a": 1}),
    "other_treedef": lambda: jax.tree.structure({"b": 1}),
    "aval": lambda: jax.typeof(jnp.ones([2])),
    "ufunc": lambda: np.add,
    "jax_ufunc": lambda: jnp.add,
    "builtin": lambda: len,
    "method_of_a_type": lambda: str.join,
    "relu": lambda: nn.relu,
    "gelu": lambda: jax.nn.gelu,
    "silu": lambda: jax.nn.silu,
    "normal": lambda: nn.initializers.normal(0.1),
    "other_normal": lambda: nn.initializers.normal(0.2),
    "lecun": lambda: nn.initializers.lecun_normal(),
    "boxed": lambda: nn.with_partitioning(nn.initializers.ones, ("a",)),
    "partial": lambda: functools.partial(jnp.sum, axis=1),
    "partial_of_a_float": lambda: functools.partial(jnp.sum, axis=1.0),
    "frozen": lambda: Frozen(),
    "frozen_float": lambda: Frozen(1.0),
    "open": lambda: Open(),
    "plain": lambda: Plain(1),
    "other_plain": lambda: Plain(2),
    "method": lambda: Plain(1).method,
    "other_method": lambda: Plain(2).method,
    "class": lambda: Plain,
    "linen_class": lambda: Keeping,
    "linen": lambda: Keeping(2),
    "other_linen": lambda: Keeping(2.0),
    "linen_in_linen": lambda: Keeping(nn.Dense(3)),
    "closure": lambda: closure(1),
    "other_closure": lambda: closure(1.0),
    "nested": lambda: nested(1),
    "other_nested": lambda: nested(2),
    "recursive": lambda: recursive,
    "mutually": lambda: ping,
    "constant": lambda: constant,
    "with_derivative": lambda: with_derivative,
}


@pytest.mark.parametrize("make", VALUES.values(), ids=VALUES)
def test_values_have_a_key_of_their_own(make):
    key = key_of(make())
    assert key is not None
    assert key == key_of(make())
    hash(key)
    same = [name for name, other in VALUES.items() if key_of(other()) == key]
    assert len(same) == 1


class Kind(enum.Enum):
    A = "a"

    def twice(self):
        return self.value * 2


@flax.struct.dataclass
class Struct:
    a: Any = 1
    b: Any = flax.struct.field(pytree_node=False, default=2)


@dataclasses.dataclass
class WithFactory:
    a: Any = dataclasses.field(default_factory=list)


class Bits(enum.IntFlag):
    A = 1
    B = 2


def uses_classes(x):
    pair, struct, made = Pair(1, 2), Struct(x), WithFactory()
    return Kind.A, Bits.A | Bits.B, pair._replace(a=x), struct.replace(a=x), made


@pytest.mark.parametrize(
    "value",
    [uses_classes, Kind, Kind.A, Bits, Bits.A | Bits.B, Pair, Struct, Struct(1)],
)
def test_classes_that_python_makes_are_values(value):
    assert key_of(value) == key_of(value) is not None


def asserts(x):
    assert x.shape == (2, 4), "and pytest writes its own code for that"
    return x


def test_code_that_asserts_is_a_value_under_pytest():
    assert any(name.startswith("@py") for name in asserts.__code__.co_names)
    assert key_of(asserts) == key_of(asserts) is not None


class Raising:
    def __getattribute__(self, name):
        raise ValueError(name)


UNKNOWN = {
    "raising": lambda: Raising(),
    "array": lambda: X,
    "numpy": lambda: np.ones([2]),
    "array_inside": lambda: {"a": [(X,)]},
    "bound_builtin": lambda: {}.get,
    "bound_method_of_an_array": lambda: np.ones([2]).copy,
    "text": lambda: Text("a"),
    "float_subclass": lambda: Odd(1.0),
    "slots": lambda: Slotted(),
    "finding": lambda: Finding(),
    "ordered": lambda: collections.OrderedDict(a=1),
    "default": lambda: collections.defaultdict(int),
    "counter": lambda: collections.Counter(),
    "iterator": lambda: iter([1]),
    "generator": lambda: (i for i in [1]),
    "weak": lambda: weakref.ref(Plain),
    "code_with_no_global": lambda: nowhere,
    "writes_a_global": lambda: counting,
    "writes_a_class": lambda: writes_a_class,
    "global_array": lambda: of_an_array,
    "global_dict": lambda: of_a_dict,
    "global_object": lambda: of_an_object,
    "module": lambda: of_a_module_of_ours,
    "closed_over_array": lambda: closure(X),
    "object_with_array": lambda: Plain(X),
    "frozen_with_array": lambda: Frozen(X),
    "bound": lambda: nn.Dense(3).bind({}),
    "closed_over_bound": lambda: closure(nn.Dense(3).bind({})),
    "method_of_bound": lambda: nn.Dense(3).bind({}).__call__,
    "cached": lambda: functools.lru_cache(lambda: 1),
    "jitted_of_a_dict": lambda: jax.jit(of_a_dict),
}


@pytest.mark.parametrize("make", UNKNOWN.values(), ids=UNKNOWN)
def test_the_rest_has_none(make):
    assert key_of(make()) is None


def test_a_key_holds_the_present():
    made = Plain(1)
    box = Open(made)
    function = closure(1)
    jitted = jax.jit(closure(1))
    for value, change in (
        (box, lambda: setattr(made, "a", 2)),
        (box, lambda: setattr(box, "more", 1)),
        (function, lambda: setattr(function, "mark", 1)),
        (function, lambda: setattr(function, "__kwdefaults__", {"k": 1})),
        (function, lambda: setattr(function.__closure__[0], "cell_contents", 3)),
        (jitted, lambda: setattr(jitted, "mark", 1)),
        (made, lambda: setattr(Plain, "more", 1)),
        (Kind.A, lambda: setattr(Kind, "more", 1)),
        (Kind.A, lambda: setattr(Kind, "twice", lambda self: 3)),
        (Pair(1, 2), lambda: setattr(Pair, "more", 1)),
        (made, lambda: setattr(Plain, "method", lambda self: 2)),
        (Keeping(), lambda: setattr(Keeping, "more", 1)),
        (with_derivative, lambda: with_derivative.defjvp(lambda p, t: (p, t))),
        (constant, lambda: globals().update(COUNT=COUNT + 1)),
    ):
        before = key_of(value)
        assert before is not None
        change()
        assert key_of(value) != before


def test_keys_keep_nothing_alive():
    class Local(nn.Module):
        a: Any = 1

    function = jax.jit(lambda x: x)
    held = Plain(function)
    initialiser = closure(held)
    things = (Local, function, held, initialiser, initialiser.__code__)
    dead = [weakref.ref(thing) for thing in things[:-1]]
    kept = key_of((Local(), initialiser, Local, nn.initializers.normal(0.5)))
    assert kept is not None
    del Local, function, held, initialiser, things
    gc.collect()
    assert [ref() for ref in dead] == [None] * len(dead)


# Shapes: never an old one for what now makes another.


class Config:
    def __init__(self, width):
        self.width = width


class Initialiser:
    def __init__(self, config):
        self.config = config

    def __call__(self, key):
        return jnp.ones([self.config.width])


SETTINGS = Config(2)
WIDTH = 2


class Net(nn.Module):
    config: Any = SETTINGS
    width: int = 2
    scale = 2

    @nn.compact
    def of_config(self):
        return self.param("w", lambda key: jnp.ones([self.config.width]))

    @nn.compact
    def of_config_alone(self):
        config = self.config
        return self.param("w", lambda key: jnp.ones([config.width]))

    @nn.compact
    def of_object(self):
        return self.param("w", Initialiser(self.config))

    @nn.compact
    def of_method(self):
        return self.param("w", Initialiser(self.config).__call__)

    @nn.compact
    def of_global(self):
        return self.param("w", lambda key: jnp.ones([WIDTH]))

    @nn.compact
    def of_global_object(self):
        return self.param("w", lambda key: jnp.ones([SETTINGS.width]))

    @nn.compact
    def of_default(self):
        return self.param("w", lambda key, c=SETTINGS: jnp.ones([c.width]))

    @nn.compact
    def of_class(self):
        return self.param("w", lambda key: jnp.ones([self.scale]))

    @nn.compact
    def of_class_named(self):
        return self.param("w", lambda key: jnp.ones([Net.scale]))

    @nn.compact
    def of_variable(self):
        self.variable("stats", "s", lambda: jnp.ones([WIDTH]))
        of = lambda key: jnp.ones(self.get_variable("stats", "s").shape)
        return self.param("w", of)

    @nn.compact
    def of_setup(self):
        return self.param("w", lambda key: jnp.ones([self.made]))

    @nn.compact
    def of_getattr(self):
        return self.param("w", lambda key: jnp.ones([getattr(self, "made")]))  # noqa: B009

    def setup(self):
        self.made = WIDTH


def set_width(width):
    global WIDTH
    WIDTH = SETTINGS.width = Net.scale = width


METHODS = sorted(m for m in vars(Net) if m.startswith("of_"))


@pytest.mark.parametrize("method", METHODS)
def test_a_shape_is_never_that_of_before(method):
    f = hk.transform_with_state(lambda: FlaxModule(Net(), name="net")(method=method))
    made = []
    for width in (2, 3, 2):
        set_width(width)
        made.append(f.init(KEY))
        assert f.apply(*made[-1], None)[0].shape == (width,)
        for params, state in made:
            if params["net"]["w"].shape != (width,):
                state = made[-1][1]
                with pytest.raises(flax.errors.ScopeParamShapeError):
                    f.apply(params, state, None)


def count_specs(monkeypatch, run, *args):
    """How often an initialiser is evaluated for its shapes, by us or by Flax."""
    count = []
    eval_shape = jax.eval_shape
    with monkeypatch.context() as patch:
        counted = lambda *args: count.append(1) or eval_shape(*args)
        patch.setattr(jax, "eval_shape", counted)
        run(*args)
    return len(count)


class Fresh(nn.Module):
    """Makes its initialisers anew at each trace."""

    width: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(self.width, kernel_init=nn.initializers.normal(0.03))(x)
        x = nn.DenseGeneral((2, 2))(x).reshape(2, -1)
        own = self.param("own", lambda key: jnp.ones([self.width + 1]))
        return x + own[None]


def test_shapes_are_remembered_of_initialisers_that_are_made_anew(monkeypatch):
    f = hk.transform(lambda x: FlaxModule(Fresh(), name="net")(x))
    params = f.init(KEY, X)
    shapes._known.clear()
    first = count_specs(monkeypatch, f.apply, params, None, X)
    assert first > 0
    assert count_specs(monkeypatch, f.apply, params, None, X) == 0


class Closes(nn.Module):
    """Makes parameters of the shape of what its initialisers close over."""

    @nn.compact
    def __call__(self, x):
        w = x * 2
        y = self.param("w", lambda key: w[0])
        return x + y[None] + self.param("v", lambda key, like: like[0], w)[None]


class Noted(Box):
    """A box that holds an array beside its value."""

    note: Any = flax.struct.field(pytree_node=False)


def test_shapes_are_remembered_of_initialisers_that_close_over_arrays(monkeypatch):
    f = hk.transform(lambda x: FlaxModule(Closes(), name="net")(x))
    narrow, wide = jnp.ones([2, 4]), jnp.ones([2, 5])
    made = {x.shape: f.init(KEY, x) for x in (narrow, wide)}
    trace = lambda x: jax.make_jaxpr(lambda p, x: f.apply(p, None, x))(made[x.shape], x)
    for x in (narrow, wide):
        trace(x)

    for x in (narrow, wide):
        assert count_specs(monkeypatch, trace, x) == 0
    with pytest.raises(flax.errors.ScopeParamShapeError):
        jax.make_jaxpr(lambda p, x: f.apply(p, None, x))(made[narrow.shape], wide)
    f.apply(made[narrow.shape], None, narrow)  # its arrays may be read: no types alone
    with pytest.raises(flax.errors.ScopeParamShapeError):
        f.apply(made[wide.shape], None, narrow)


def test_a_box_that_holds_an_array_is_not_remembered():
    seen = []

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            w = x * 2
            self.param("w", lambda key: Noted(w[0], Plain(w)))
            seen.append(self.variables["params"]["w"].note.a is w)
            return x

    f = hk.transform(lambda x: FlaxModule(Net(), name="net")(x))
    params = f.init(KEY, X)
    for _ in range(2):
        _boxes._known.clear()  # what init made
        jax.make_jaxpr(lambda p, x: f.apply(p, None, x))(params, X)
    assert seen == [True] * 3


def test_what_initialisers_hold_is_not_kept_alive():
    class Held:
        """Something large."""

        width = 4

    dead = []

    def forward(x):
        held, config = Held(), Config(4)

        class Local(nn.Module):
            config: Any

            @nn.compact
            def __call__(self, x):
                w = self.param("w", lambda key: jnp.ones([held.width]))
                v = self.param("v", lambda key: jnp.ones([self.config.width]))
                u = self.param("u", lambda key: x[0])
                return x + (u + v + w)[None]

        dead.extend(map(weakref.ref, (held, config, Local, Local.__call__)))
        return FlaxModule(Local(config), name="net")(x)

    f = hk.transform(forward)
    with jax.checking_leaks():
        params = jax.jit(f.init)(KEY, X)
        jax.jit(f.apply)(params, None, X)
    jax.clear_caches()
    gc.collect()
    assert [ref() for ref in dead] == [None] * len(dead)
