"""Each private symbol of Flax and Haiku that we lean on, and each behaviour.

A release that breaks one of these is noticed here, by name.
"""

import ast
import contextlib
import inspect
import pathlib
import re
from typing import Any
from typing import NamedTuple

from flax import core
from flax.core import lift
from flax.core import scope as core_scope
from flax.core import tracers
import flax.linen as nn
from flax.linen import module as linen_module
import haiku as hk
from haiku._src import base
from haiku._src import config
from haiku._src import mixed_precision
from haiku._src import module as haiku_module
from haiku._src import transform
from haiku._src import typing
from haiku._src import utils
import jax
from jax.interpreters import partial_eval
import jax.numpy as jnp
import jmp
import pytest

import hk_bridge
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge._core import caller
from hk_bridge._flax import pack
from hk_bridge._flax.bind import bind
from hk_bridge._flax.host import NEED_NO_KEY
from hk_bridge._flax.keys import folded
from hk_bridge._flax.running import FLAG
from hk_bridge._flax.scope import Scope
from hk_bridge._haiku.apart import HaikuAsked

KEY = jax.random.key(0)
X = jnp.ones([1, 2])
PACKAGE = pathlib.Path(hk_bridge.__file__).parent


def private(folder):
    """The private names of other libraries that the files of a door use.

    That are attributes of no name that the package itself gives, and whatever is taken
    out of a private module."""
    trees = [ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    own = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    own |= {n.id for n in nodes if isinstance(n, ast.Name)}
    own |= {
        n.attr
        for n in nodes
        if isinstance(n, ast.Attribute)
        and isinstance(n.ctx, ast.Store)
        and ast.unparse(n.value) == "self"
    }
    found = set()
    for path in (PACKAGE / folder).glob("*.py"):
        tree = ast.parse(path.read_text())
        of_src = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module.endswith("._src")
            for alias in node.names
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or node.attr.startswith("__"):
                continue
            is_private = node.attr.startswith("_") and node.attr not in own
            is_private &= node.attr != "_getframe"  # of Python
            if is_private or ast.unparse(node.value) in of_src:
                found.add(node.attr)
    return found


def declared(folder):
    """The private names that a door says it leans on."""
    tree = ast.parse((PACKAGE / folder / "private.py").read_text())
    strings = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    symbols = [s for s in strings if isinstance(s, str) and re.search(r"^[\w.]+:\w", s)]
    return {re.split("[.:]", symbol)[-1] for symbol in symbols}


# Attributes of instances, which no class has.
OF_INSTANCES = {"_creation_frame_id", "_storage", "_submodules", "_trace"}


@pytest.mark.parametrize("folder", ["_flax", "_haiku"])
def test_each_private_name_is_declared_at_the_door(folder):
    assert private(folder) - declared(folder) <= OF_INSTANCES


@pytest.mark.parametrize("folder", ["_flax", "_haiku"])
def test_each_private_name_has_a_canary(folder):
    names = private(folder) | declared(folder)
    assert len(names) > 10
    source = pathlib.Path(__file__).read_text()
    assert {n for n in names if not re.search(rf"\b{n}\b", source)} == set()


# Flax.


class Host(_flax.Alone):
    """A host of a run at apply, or at init, that knows nothing."""

    def __init__(self, rngs=None, initializing=True):
        super().__init__(_flax.streams(nn.Dense(1), rngs, None, initializing))
        self.initializing = initializing


def scope_of_ours(variables, mutable=True, **host):
    running = Host(**host)
    root = Scope.root_of(running, mutable, variables, nn.Dense)
    root.kept = running
    return root


def test_module_checks():
    nn.Module._module_checks(nn.Dense(2))


def test_get_unbound_fn():
    module = nn.Dense(2)
    assert linen_module._get_unbound_fn(module.__call__) is nn.Dense.__call__


def test_filters_of_collections_and_streams():
    both = core_scope.union_filters("a", ["b"])
    assert all(core_scope.in_filter(both, name) for name in "ab")
    assert not core_scope.in_filter(both, "c")
    assert core_scope.in_filter(core.DenyList("a"), "c")
    assert core_scope.filter_to_set(("a", "b")) == {"a", "b"}
    assert core_scope.CollectionFilter is not None  # for type checkers


def test_variables_are_of_one_class_which_has_their_scope():
    scope = core.Scope({}, mutable=True)
    variable = scope.variable("s", "a", lambda: 1)
    assert type(variable) is core_scope.Variable
    assert variable.scope is scope


def test_the_state_of_a_module():
    assert type(nn.Dense(2)._state) is linen_module._ModuleInternalState
    assert nn.Dense(2)._state.is_initialized is False


def test_clone_deep():
    class Outer(nn.Module):
        inner: nn.Module

    module = Outer(nn.Dense(2))
    clone = module.clone(parent=core.Scope({}), _deep_clone=True)
    assert clone.inner is not module.inner
    assert clone.scope is not None


@pytest.mark.parametrize(
    "module", [nn.Dense(2), nn.LayerNorm(name="norm"), nn.Conv(2, (3, 3))]
)
def test_a_layer_is_bound_as_flax_binds_it(module):
    ours, theirs = scope_of_ours({}), scope_of_ours({})
    bound = bind(module, ours)
    expected = module.clone(parent=theirs, _deep_clone=True)
    assert bound.scope is bound.parent is ours
    bound, expected = vars(bound).copy(), vars(expected).copy()
    assert bound.pop("scope") is bound.pop("_parent_ref") is ours
    assert expected.pop("scope") is expected.pop("_parent_ref") is theirs
    assert bound.pop("_id") != module._id != expected.pop("_id")
    assert bound.pop("_state") == expected.pop("_state") != module._state
    assert bound == expected


def test_what_may_hold_modules_is_bound_by_flax():
    class Outer(nn.Module):
        parts: tuple
        options: dict

    class Remembers(nn.Module):
        def __post_init__(self):
            super().__post_init__()
            object.__setattr__(self, "seen", self.scope)

    scope = scope_of_ours({})
    module = Outer((nn.Dense(1), [2]), {"a": 1})
    bound = bind(module, scope)
    assert bound.parts[0].scope is not None
    assert bound.parts[0] is not module.parts[0]
    assert bound.parts[1] == (2,)
    assert isinstance(bound.options, core.FrozenDict)
    assert bind(Remembers(), scope).seen is scope


def test_scope_attributes():
    root = core.Scope({"params": {"a": {"w": 1}}}, {"params": KEY})
    child = root.push("a")
    assert root._variables == {"params": {"a": {"w": 1}}}
    assert child.parent is root
    assert child.path == child.debug_path == ("a",)
    assert child.root is child._root is root
    assert root._root is None
    assert child._invalid is False
    child._check_valid()
    assert child.trace_level == tracers.current_trace()
    child._validate_trace_level()
    assert root.rng_counters[core_scope.child_rng_token, "a"] is child.rng_counters
    assert list(inspect.signature(core.Scope.__init__).parameters) == [
        "self", "variables", "rngs", "name", "mutable", "parent", "path",
        "debug_path", "flags",
    ]  # fmt: skip


def test_collections_are_taken_of_the_parent():
    root = core.Scope({"params": {"a": {"w": 1}}}, mutable=["s"])
    child = root.push("a")
    assert child._variables == {}
    assert child._collection("params") is root._variables["params"]["a"]
    assert child._collection("s") == {}
    assert "s" not in child._variables
    assert child._mutable_collection("s") is root._variables["s"]["a"]
    other = root.push("b")
    asked = []
    other._collection = asked.append
    other._populate_collections()
    assert asked == ["params", "s"]


@pytest.mark.parametrize("initializing", [False, True])
def test_a_scope_of_ours_is_made_as_flaxs(initializing):
    flags = {"initializing": True} if initializing else {}
    host = {"rngs": {"params": KEY}, "initializing": initializing}
    ours = scope_of_ours({"s": {}}, ["s"], **host)
    theirs = core.Scope({"s": {}}, {"params": KEY}, mutable=["s"], flags=flags)
    pairs = [
        (ours, theirs),
        (ours.push("a"), theirs.push("a")),
        (ours.rewound(), theirs.rewound()),
        (ours.push("b").rewound(rewind_rngs=True), theirs.push("b").rewound(True)),
        (ours.push("c").push("d"), theirs.push("c").push("d")),
    ]
    own = {
        "running",
        "record",
        "inside",
        "kept",
        "boxed",
        "_root_path",
        "_outer",
    }
    own |= {"_tells", "_passing", "_pack", "_maps", "_same", "_began"}
    for ours, theirs in pairs:
        attributes = {k: v for k, v in vars(ours).items() if k not in own}
        lazy = {k: rng.suffix for k, rng in attributes.pop("_rngs").items()}
        expected = dict(vars(theirs))
        assert lazy == {k: rng.suffix for k, rng in expected.pop("rngs").items()}
        assert ours.path == expected.pop("path")
        flags = dict(attributes.pop("flags"))
        assert flags.pop(FLAG).leads_from(ours)
        assert flags == expected.pop("flags")
        for name in ("parent", "_root"):
            scopes = [made.pop(name) for made in (attributes, expected)]
            assert [x and x.path for x in scopes][0] == [x and x.path for x in scopes][
                1
            ]
        assert attributes == expected


def test_a_plain_scope_may_be_given_another_class():
    class Other(core.Scope):
        path = "path"

    root = core.Scope({"params": {"a": {"w": 1}}}, {"params": KEY}, mutable=True)
    child = root.push("a")
    assert {"path", "rngs"} <= vars(child).keys()
    del child.path
    child.__class__ = Other
    assert child.path == "path"
    assert child.get_variable("params", "w") == 1
    assert child.root is root


def test_an_adopted_scope_is_as_one_of_ours():
    outside = scope_of_ours({"params": {"a": {"w": 1}}}, rngs={"params": KEY})
    host = {"rngs": {"params": KEY}, "mutable": True, "flags": outside.flags}
    child = core.Scope({"params": {"a": {"w": 1}}}, **host).push("a")
    Scope.adopt(child)
    ours = outside.push("a")
    assert type(child) is type(child.parent) is Scope
    assert child.path == ours.path == ("a",)
    assert child.running is ours.running
    assert child.inside
    assert child.has_rng("params")
    assert child.get_variable("params", "w") == 1
    own = {
        "boxed",
        "_outer",
        "inside",
        "record",
        "_variables",
        "_passing",
        "kept",
    }
    assert vars(child).keys() - own == vars(ours).keys() - own | {"_root_path"}


def test_lazy_rng():
    lazy = core_scope.LazyRng.create(core_scope.LazyRng.create(KEY, "a"), 1)
    expected = core.Scope({}, {"params": KEY}).push("a").make_rng("params")
    assert jnp.all(
        jax.random.key_data(lazy.as_jax_rng()) == jax.random.key_data(expected)
    )


def test_a_scope_of_ours_folds_keys_as_flax_does():
    for suffix in [(1,), ("a", 1), ("a", "b/c", 255), ("é", 256, 0)]:
        lazy = core_scope.LazyRng.create(KEY, *suffix)
        ours, theirs = folded(KEY, suffix), lazy.as_jax_rng()
        assert jnp.all(jax.random.key_data(ours) == jax.random.key_data(theirs))


def test_initialisers_that_need_no_key():
    for initialiser in NEED_NO_KEY:
        assert jnp.all(initialiser(None, (2,)) == initialiser(KEY, (2,)))


class Outside(core.Scope):
    """Keeps who asks for its keys, and what is put back into it."""

    @property
    def rngs(self):
        self.__dict__.setdefault("packs", []).append(pack.asking())
        return self._rngs

    @rngs.setter
    def rngs(self, rngs):
        self._rngs = rngs

    def put_variable(self, col, name, value):
        self.__dict__.setdefault("put", []).append((col, name, value))
        super().put_variable(col, name, value)


def outside(debug_path=("x", "a")):
    variables = {"params": {"w": jnp.ones([2])}, "s": {"c": jnp.zeros([2])}}
    rngs = {"params": KEY, "dropout": KEY}
    scope = Outside(
        variables, rngs, name="a", mutable=["s"], path=debug_path, debug_path=debug_path
    )
    scope.packs, scope.put = [], []
    return scope


def without_hash(jitted):
    """`lift.jit` takes a key of what its function is, too."""
    return lambda scope, *args: jitted(scope, "key", *args)


LIFTED = {
    "jit": (lambda f: without_hash(lift.jit(lambda s, h, *args: f(s, *args))), {}),
    "remat": (lift.checkpoint, {}),
    "vmap": (lift.vmap, {"variable_axes": {True: 0}, "split_rngs": {True: False}}),
    "scan": (lift.scan, {"variable_carry": "s", "split_rngs": {True: False}}),
    "map_variables": (
        lambda f: lift.map_variables(f, "s", lambda s: s, lambda s: s, mutable=True),
        {},
    ),
}


@pytest.mark.parametrize("name", LIFTED)
@pytest.mark.parametrize("debug_path", [("x", "a"), ("a",), ()])
def test_a_lifted_transform_is_told_by_its_frame(name, debug_path):
    """`_partial_pack` has these locals; what it makes has such a `debug_path`."""
    made = []

    def body(scope, c, x):
        made.append(scope)
        return c, x

    scope, (transform, kwargs) = outside(debug_path), LIFTED[name]
    transform(body, **kwargs)(scope, jnp.ones([2]), jnp.ones([2]))
    asking = [found for found in scope.packs if found is not None]
    assert asking
    assert type(asking[0].rng_filters) is tuple
    assert asking[0].jitted == (name == "jit")
    assert (asking[0].name == "map_variables") == (name == "map_variables")
    assert type(made[0]) is core.Scope
    assert made[0].parent is None
    assert made[0].debug_path == asking[0].inside(debug_path)
    assert made[0].path == debug_path


def test_the_filters_for_streams_are_told():
    scope, body = outside(), lambda scope, x: x
    lift.checkpoint(body, rngs="dropout")(scope, 1.0)
    lift.vmap(body, variable_axes={}, split_rngs={"a": True})(scope, jnp.ones(2))
    found = [asking.rng_filters for asking in scope.packs if asking]
    assert found == [("dropout",), ("a",)]


def test_nobody_asks_but_a_lifted_transform():
    scope = outside()
    assert scope.rngs
    scope.push("b")
    scope.make_rng("params")
    assert scope.packs == [None] * len(scope.packs) != []


@jax.tree_util.register_pytree_node_class
class Told:
    """A collection that only lists its items, with something that is no array."""

    def __init__(self, tree, told):
        self.tree, self.told = tree, told

    def items(self):
        return [(name, Said(v, self.told)) for name, v in self.tree.items()]

    def tree_flatten(self):
        return (self.tree,), self.told

    @classmethod
    def tree_unflatten(cls, told, children):
        return cls(children[0], told)


class Said(NamedTuple):
    value: Any
    told: Any


class Inside(core.Scope):
    """Tells the outer Scope something when it ends."""

    def invalidate(self):
        super().invalidate()
        self._variables["s"] = Told(self._variables["s"], self.told)


@pytest.mark.parametrize("name", ["jit", "remat"])
def test_what_a_scope_says_as_it_ends_comes_out(name):
    """`repack` calls `invalidate` before it reads `_variables`; `publish_results_fn`
    reads `items()` and calls `put_variable`; a hit of the cache of `jit` has it all."""
    ran = []

    def body(scope):
        ran.append(scope)
        scope.__class__ = Inside
        scope.told = f"trace {len(ran)}"
        scope.put_variable("s", "c", scope.get_variable("s", "c") + 1)

    transformed = LIFTED[name][0](body)
    for call in (1, 2):
        scope = outside()
        transformed(scope)
        traces = 1 if name == "jit" else call
        assert len(ran) == traces
        ((col, variable, said),) = scope.put
        assert (col, variable) == ("s", "c")
        assert said.told == f"trace {traces}"
        assert jnp.all(said.value == 1)


class Sows(nn.Module):
    @nn.compact
    def __call__(self):
        self.sow("s", "sown", 1.0)
        self.sow("s", "sown", 2.0)
        self.perturb("perturbed", jnp.ones([]), collection="s")
        self.variable("s", "declared", lambda: 1.0).value += 1
        self.param("param", nn.initializers.ones, ())
        self.put_variable("s", "put", 1.0)


def test_who_sows_reserves_and_declares_nothing():
    calls = []

    class Seen(core.Scope):
        def reserve(self, name, col=None):
            calls.append(("reserve", name, col))
            super().reserve(name, col)

        def variable(self, col, name, *args, **kwargs):
            calls.append(("variable", name, col))
            return super().variable(col, name, *args, **kwargs)

        def param(self, name, *args, **kwargs):
            calls.append(("param", name, "params"))
            return super().param(name, *args, **kwargs)

    Sows(parent=Seen({}, {"params": KEY}, mutable=True))()
    assert calls == [
        ("reserve", "sown", "s"),
        ("reserve", "perturbed", "s"),
        ("variable", "declared", "s"),
        ("reserve", "declared", "s"),
        ("param", "param", "params"),
        ("reserve", "param", "params"),
    ]


def test_share_scope_gives_another_parent():
    class Shares(nn.Module):
        def setup(self):
            self.inner = nn.Sequential([nn.Dense(2)])
            nn.share_scope(self, self.inner)

        def __call__(self, x):
            y = self.inner(x)
            paths.append((self.scope.path, self.inner.layers[0].scope.path))
            return y

    paths = []
    for root in (core.Scope({}, {"params": KEY}, mutable=True), scope_of_ours({})):
        if type(root) is Scope:
            root = scope_of_ours({}, rngs={"params": KEY})
        Shares(parent=root.push("a"))(X)
        assert sorted(root._variables["params"]) == ["a"]
        assert sorted(root._variables["params"]["a"]) == ["layers_0"]
    assert paths[1] == (("a",), ("a", "layers_0"))


def test_what_is_staged_is_of_one_class_and_has_no_value():
    def look(x):
        assert type(x) is partial_eval.DynamicJaxprTracer
        assert _flax.is_staged(x)
        assert _flax.are_staged_here([x])  # by `trace_ctx` and `_trace`
        jax.grad(lambda y: y if _flax.are_staged_here([y]) else None)(x * 1.0)
        with pytest.raises(jax.errors.ConcretizationTypeError):
            int(x)

    jax.make_jaxpr(look)(1.0)
    assert not _flax.is_staged(X)
    jax.grad(lambda x: int(x) * (x if not _flax.is_staged(x) else None))(1.0)


def test_the_stack_of_interceptors():
    assert not _flax.is_intercepted()
    with nn.intercept_methods(lambda run, args, kwargs, context: run(*args, **kwargs)):
        assert _flax.is_intercepted()
        assert len(linen_module._global_interceptor_stack._storage) == 1


def test_an_interceptor_put_below_is_the_outermost_and_stays():
    """The interceptors in force leave from the top of `_storage`, a list."""
    order = []

    def named(name):
        def interceptor(run, args, kwargs, context):
            order.append(name)
            return run(*args, **kwargs)

        return interceptor

    storage, below = linen_module._global_interceptor_stack._storage, named("below")
    assert type(storage) is list
    with nn.intercept_methods(named("one")):
        with nn.intercept_methods(named("two")):
            storage.insert(0, below)
            nn.Dense(2).init(KEY, X)
        assert order == ["below", "one", "two"]
        nn.Dense(2).init(KEY, X)
    assert storage == [below]
    storage.remove(below)


def test_interceptors_see_modules_in_lifted_transforms():
    seen = []

    def interceptor(next_fun, args, kwargs, context):
        seen.append(type(context.module).__name__)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        nn.remat(nn.Dense)(2).init(KEY, jnp.ones([1, 2]))
    assert "CheckpointDense" in seen


def test_transforms_of_classes_are_not_intercepted_themselves():
    """Between `nn.jit` and `nn.remat` no method runs whose Scope could be seen."""
    seen = []

    def interceptor(run, args, kwargs, context):
        seen.append(context.module.scope.debug_path)
        return run(*args, **kwargs)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.jit(nn.remat(nn.Dense))(2, name="a")(x)

    with nn.intercept_methods(interceptor):
        Net().init(KEY, X)
    assert {path[-1] for path in seen if path} == {"remat(jit(a))"}


def test_what_compact_methods_and_parents_are_wrapped_in():
    assert isinstance(linen_module.DescriptorWrapper, type)


# Haiku.


def in_transform(f):
    return hk.transform(f).init(None)


def test_frames():
    def forward():
        frame = base.current_frame()
        hk.get_parameter("w", [], init=jnp.ones)
        hk.set_state("s", jnp.ones([]))
        assert frame.params["~"].keys() == {"w"}
        assert frame.state["~"]["s"].current == 1.0
        assert frame.state["~"]["s"] == base.StatePair(1.0, 1.0)
        assert isinstance(frame.frame_id, int)
        assert isinstance(frame.params, dict)  # new names come last
        assert isinstance(frame.state, dict)
        hk.remat(lambda: ids.append(base.current_frame().frame_id))()
        ids.append(frame.frame_id)

    ids = []
    hk.transform_with_state(forward).init(None)
    assert ids[0] > ids[1]


def test_haiku_checks_where_parameters_are_read():
    """Since dm-haiku 0.0.17; to do without is right for a Haiku that has no check."""
    check = getattr(base, "assert_jax_usage", None)
    if check is not None:
        hk.transform(lambda: check("get_parameter")).init(None)


def test_a_parameter_that_is_put_into_the_frame_is_one_of_haikus():
    class Net(hk.Module):
        def __call__(self, put):
            if put:
                base.current_frame().params["net"]["a"] = jnp.ones([2])
                base.current_frame().params["net"]["b"] = jnp.zeros([])
            found = [
                hk.get_parameter("a", [2], init=jnp.ones),
                hk.get_parameter("b", [], init=jnp.zeros),
            ]
            assert hk.get_params()["net"]["a"] is found[0]
            return found, self.params_dict()

    def made(put):
        f = hk.transform(lambda: Net(name="net")(put))
        params = f.init(None)
        return list(params["net"].items()), f.apply(params, None)

    put, theirs = made(True), made(False)
    assert str(put) == str(theirs)


def of_a_name_scope():
    with hk.name_scope("scope"):
        pass


def of_a_getter():
    with hk.custom_getter(lambda getter, value, context: getter(value)):
        hk.get_parameter("w", [], init=jnp.ones)


# Whatever of Haiku looks at the transform that it is called in. `hk.mixed_precision`
# does not: it looks at the thread, so code that names it is not shared. A transform
# inside is a transform of its own.
ASKING = {
    "params": lambda: hk.get_params(),
    "state": lambda: hk.get_current_state(),
    "initial_state": lambda: hk.get_initial_state(),
    "get_parameter": lambda: hk.get_parameter("w", [], init=jnp.ones),
    "get_state": lambda: hk.get_state("s", [], init=jnp.ones),
    "set_state": lambda: hk.set_state("s", 1.0),
    "key": lambda: hk.next_rng_key(),
    "keys": lambda: hk.next_rng_keys(2),
    "maybe_key": lambda: hk.maybe_next_rng_key(),
    "state_of_keys": lambda: hk.maybe_get_rng_sequence_state(),
    "reserved_keys": lambda: hk.reserve_rng_keys(2),
    "replaced_keys": lambda: hk.replace_rng_sequence_state((KEY, ())),
    "with_rng": lambda: hk.with_rng(KEY).__enter__(),
    "running_init": lambda: hk.running_init(),
    "name": lambda: hk.experimental.current_name(),
    "module": lambda: hk.Module(),
    "layer": lambda: hk.Linear(3),
    "name_scope": of_a_name_scope,
    "getter": of_a_getter,
    "remat": lambda: hk.remat(lambda: None)(),
    "cond": lambda: hk.cond(True, lambda: 1, lambda: 2),
    "switch": lambda: hk.switch(0, [lambda: 1, lambda: 2]),
    "while_loop": lambda: hk.while_loop(lambda x: x < 1, lambda x: x + 1, 0),
    "fori_loop": lambda: hk.fori_loop(0, 1, lambda i, x: x, 0),
    "scan": lambda: hk.scan(lambda c, x: (c, x), 0, jnp.ones(2)),
    "map": lambda: hk.map(lambda x: x, jnp.ones(2)),
    "vmap": lambda: hk.vmap(lambda x: x, split_rng=False)(jnp.ones(2)),
    "grad": lambda: hk.grad(lambda x: x)(1.0),
    "value_and_grad": lambda: hk.value_and_grad(lambda x: x)(1.0),
    "eval_shape": lambda: hk.eval_shape(lambda x: x, 1.0),
    "layer_stack": lambda: hk.experimental.layer_stack(2)(lambda x: x)(1.0),
    "lift": lambda: hk.lift(hk.transform(lambda: None).init, name="a")(None),
    "transparent_lift": lambda: hk.transparent_lift(dict)(),
}  # fmt: skip


@pytest.mark.parametrize("ask", ASKING.values(), ids=ASKING)
def test_who_asks_haiku_in_a_closed_transform_is_refused(ask):
    def caught():
        with contextlib.suppress(Exception):
            ask()

    def forward(function):
        before = [len(stack) for stack in (base.frame_stack, base.context_stack)]
        with pytest.raises(HaikuAsked):
            _haiku.apart(function)()
        after = [len(stack) for stack in (base.frame_stack, base.context_stack)]
        assert before == after

    for function in (ask, caught):
        hk.transform_with_state(forward).apply({}, {}, KEY, function)


def test_lift_prefix():
    def forward():
        hk.lift(hk.transform(inner).init, name="outer")(None)
        prefixes.append(base.get_lift_prefix())

    def inner():
        prefixes.append(base.get_lift_prefix())

    prefixes = []
    hk.transform(forward).init(None)
    assert prefixes == ["outer/", None]


def test_leaves_are_named_after_the_module_on_the_stack():
    def forward():
        module = hk.Module(name="m")
        module.module_name = "any/0/name-1"
        with base.current_frame().module_stack(base.ModuleState(module, "__call__")):
            hk.get_parameter("w", [], init=jnp.ones)

    assert list(in_transform(forward)) == ["any/0/name-1"]


def test_the_innermost_module_is_the_first_of_the_stack():
    seen = []

    class Net(hk.Module):
        def __init__(self, inner=None, name=None):
            super().__init__(name)
            self.inner = inner

        def __call__(self):
            stack = base.current_frame().module_stack
            seen.append([state.module.module_name for state in stack])
            assert stack.peek().module is self
            assert base.current_name() == self.module_name
            if self.inner:
                self.inner()

    in_transform(lambda: Net(Net(name="inner"), name="outer")())
    assert seen == [["outer"], ["inner", "outer"]]


def test_state_is_a_pair():
    def forward():
        hk.get_state("s", [], init=jnp.zeros)
        hk.set_state("s", jnp.ones([]))
        pair = base.current_frame().state["~"]["s"]
        assert type(pair) is base.StatePair
        assert pair._fields == ("initial", "current")
        assert (pair.initial, pair.current) == (0, 1)

    hk.transform_with_state(forward).init(None)


def test_a_lifted_transform_is_told_by_the_top_of_its_frame():
    seen = []

    def forward():
        hk.lift(hk.transform(inside).init, name="a")(None)
        hk.transform(inside).init(None)

    def inside():
        frames = [frame for frame in base.frame_stack if frame.module_stack]
        tops = [type(frame.module_stack.peek().module) for frame in frames]
        seen.append([issubclass(top, typing.LiftingModuleType) for top in tops])
        seen.append(len(base.context_stack))

    hk.transform(forward).init(None)
    assert seen[::2] == [[True], []]
    assert seen[1::2] == [2, 2]


def test_modules_have_what_a_stand_in_sets():
    def forward():
        module = hk.Module(name="m")
        for name in (
            "_submodules",
            "_creation_frame_id",
            "_auto_repr",
            "name",
            "module_name",
        ):
            assert hasattr(module, name)

    in_transform(forward)


def test_the_config_tells_whether_texts_are_wanted():
    assert config.get_config().module_auto_repr is True
    with hk.config.context(module_auto_repr=False):
        assert config.get_config().module_auto_repr is False


def test_haiku_sets_the_text_before_it_builds_a_module():
    order = []

    class Net(hk.Module):
        AUTO_REPR = False

        def __new__(cls, *args, **kwargs):
            order.append((args, kwargs))
            return super().__new__(cls)

        def __init__(self, *args, **kwargs):
            order.append("init")
            super().__init__()

        _auto_repr = property(None, lambda self, text: order.append(text))

    in_transform(lambda: Net(1, a=2))
    assert order[0] == ((1,), {"a": 2})
    assert "Net object at" in order[1]
    assert order[2:] == ["init"]


def test_who_calls_is_told_by_a_frame():
    ask = lambda: caller.module_name("default")
    assert ask() == __name__
    assert eval("ask()", {"ask": ask}) == "default"


def test_callers_are_told_of_a_module_after_its_call():
    seen = []

    class Inner(hk.Module):
        def __call__(self):
            seen.append(set(seen_by._submodules))

    class Outer(hk.Module):
        def __call__(self):
            inner()
            seen.append(set(self._submodules))

    def forward():
        nonlocal inner, seen_by
        inner, seen_by = Inner(), Outer()
        seen_by()

    inner = seen_by = None
    in_transform(forward)
    assert seen == [set(), {"inner"}]


def test_without_state_calls_init_directly():
    frames = []

    def forward():
        frame = inspect.currentframe()
        while frame is not None:
            frames.append(frame.f_code)
            frame = frame.f_back
        hk.set_state("s", jnp.ones([]))

    with pytest.raises(base.NonEmptyStateError):
        hk.transform(forward).init(None)
    inits = [i for i, code in enumerate(frames) if code.co_name == "init_fn"]
    assert inits[1] == inits[0] + 1
    assert frames[inits[1]] in transform.without_state.__code__.co_consts


def test_who_counts_keys_puts_another_function_there():
    found = [base.next_rng_key_internal]

    def forward():
        found.append(base.next_rng_key_internal)
        return hk.next_rng_key()

    hk.transform(hk.experimental.optimize_rng_use(forward)).init(KEY)
    assert found[0] is not found[1]
    assert found[0] is found[2]


def test_hooks_in_force_can_be_told():
    def forward():
        creator = lambda next_creator, *args: next_creator(*args[:3])
        assert not base.param_creator_stack
        assert not base.state_creator_stack
        with hk.custom_creator(creator, state=True):
            assert base.param_creator_stack
            assert base.state_creator_stack
        with hk.intercept_methods(lambda f, args, kwargs, context: f(*args, **kwargs)):
            assert haiku_module.interceptor_stack

    in_transform(forward)
    assert callable(mixed_precision._mixed_precision_interceptor)


def test_policies_can_be_told():
    """By `_cls_policy`."""
    before, policy = _haiku.seen.policies(), jmp.get_policy("half")
    with hk.mixed_precision.push_policy(hk.Linear, policy):
        (new,) = set(_haiku.seen.policies()) - set(before)
    assert new == (("haiku._src.basic", "Linear"), policy)
    assert _haiku.seen.policies() == before


@pytest.mark.parametrize("kind", ["param", "state"])
def test_a_getter_at_the_left_is_the_outermost(kind):
    stack = getattr(base, f"{kind}_getter_stack")

    def getters():
        twice = lambda next_getter, value, _: next_getter(value) * 2
        with hk.custom_getter(twice, state=True):
            assert base.state_getter_stack
            assert base.param_getter_stack
            stack.pushleft(lambda get, value, _: get(value) + 1)
            try:
                get = hk.get_parameter if kind == "param" else hk.get_state
                return get("w", [], init=jnp.ones)
            finally:
                stack.popleft()

    f = hk.transform_with_state(getters)
    y, _ = f.apply(*f.init(None), None)
    assert y == 3


@pytest.mark.parametrize("kind", ["param", "state"])
def test_a_get_inside_a_getter_runs_all_getters(kind):
    seen = []

    def outer(next_getter, value, context):
        seen.append(("outer", context.name))
        return next_getter(value)

    def inner(next_getter, value, context):
        seen.append(("inner", context.name))
        get = hk.get_parameter if kind == "param" else hk.get_state
        more = get("b", [], init=jnp.ones) if context.name == "a" else 0
        return next_getter(value) + more

    def forward():
        get = hk.get_parameter if kind == "param" else hk.get_state
        with hk.custom_getter(outer, state=True), hk.custom_getter(inner, state=True):
            return get("a", [], init=jnp.ones)

    hk.transform_with_state(forward).init(None)
    pairs = [("outer", "a"), ("inner", "a"), ("outer", "b"), ("inner", "b")]
    assert seen == pairs


def test_a_setter_in_force_can_be_told():
    def forward():
        assert not base.state_setter_stack
        with hk.custom_setter(lambda next_setter, value, context: next_setter(value)):
            assert base.state_setter_stack

    in_transform(forward)


def test_camel_to_snake():
    assert utils.camel_to_snake("LayerNorm2D") == "layer_norm2_d"
