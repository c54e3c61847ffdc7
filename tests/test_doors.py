"""Each private symbol of Flax and Haiku that we lean on, and each behaviour.

A release that breaks one of these is noticed here, by name.
"""

import contextlib
import inspect

from flax import core
from flax.core import lift
from flax.core import scope as core_scope
import flax.linen as nn
from flax.linen import module as linen_module
import haiku as hk
from haiku._src import base
from haiku._src import config
from haiku._src import mixed_precision
from haiku._src import module as haiku_module
from haiku._src import transform
from haiku._src import utils
import jax
import jax.numpy as jnp
import pytest

from hk_bridge import _caller
from hk_bridge import _flax
from hk_bridge import _haiku

KEY = jax.random.key(0)


# Flax.


def test_module_checks():
    nn.Module._module_checks(nn.Dense(2))


def test_get_unbound_fn():
    module = nn.Dense(2)
    assert linen_module._get_unbound_fn(module.__call__) is nn.Dense.__call__


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
    call = _flax.Call(_flax.Streams(module, None, None, True), True, True, None, None)
    ours, theirs = _flax.Scope(call, {}), _flax.Scope(call, {})
    bound = _flax._bound(module, ours)
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

    call = _flax.Call(
        _flax.Streams(nn.Dense(1), None, None, True), True, True, None, None
    )
    scope = _flax.Scope(call, {})
    module = Outer((nn.Dense(1), [2]), {"a": 1})
    bound = _flax._bound(module, scope)
    assert bound.parts[0].scope is not None
    assert bound.parts[0] is not module.parts[0]
    assert bound.parts[1] == (2,)
    assert isinstance(bound.options, core.FrozenDict)
    assert _flax._bound(Remembers(), scope).seen is scope


def test_scope_attributes():
    root = core.Scope({"params": {"a": {"w": 1}}}, {"params": KEY})
    child = root.push("a")
    assert root._variables == {"params": {"a": {"w": 1}}}
    assert child.parent is root
    assert child.path == child.debug_path == ("a",)
    child._check_valid()
    child._validate_trace_level()
    assert root.rng_counters[core_scope.child_rng_token, "a"] is child.rng_counters
    assert list(inspect.signature(core.Scope.__init__).parameters) == [
        "self", "variables", "rngs", "name", "mutable", "parent", "path",
        "debug_path", "flags",
    ]  # fmt: skip


def test_a_scope_of_ours_is_made_as_flaxs():
    streams = _flax.Streams(nn.Dense(1), {"params": KEY}, None, False)
    call = _flax.Call(streams, ["s"], False, create=None, explain=None)
    ours = _flax.Scope(call, {"s": {}})
    theirs = core.Scope({"s": {}}, {"params": KEY}, mutable=["s"])
    pairs = [
        (ours, theirs),
        (ours.push("a"), theirs.push("a")),
        (ours.rewound(), theirs.rewound()),
        (ours.push("b").rewound(rewind_rngs=True), theirs.push("b").rewound(True)),
    ]
    for ours, theirs in pairs:
        attributes = {k: v for k, v in vars(ours).items() if k not in ("call", "_hash")}
        lazy = {k: rng.suffix for k, rng in attributes.pop("_rngs").items()}
        expected = dict(vars(theirs))
        assert lazy == {k: rng.suffix for k, rng in expected.pop("rngs").items()}
        for name in ("parent", "_root"):
            scopes = [made.pop(name) for made in (attributes, expected)]
            assert [x and x.path for x in scopes][0] == [x and x.path for x in scopes][
                1
            ]
        assert attributes == expected


def test_lazy_rng():
    lazy = core_scope.LazyRng.create(core_scope.LazyRng.create(KEY, "a"), 1)
    expected = core.Scope({}, {"params": KEY}).push("a").make_rng("params")
    assert jnp.all(
        jax.random.key_data(lazy.as_jax_rng()) == jax.random.key_data(expected)
    )


def test_a_scope_of_ours_folds_keys_as_flax_does():
    for suffix in [(1,), ("a", 1), ("a", "b/c", 255), ("é", 256, 0)]:
        lazy = core_scope.LazyRng.create(KEY, *suffix)
        ours, theirs = _flax._folded(KEY, suffix), lazy.as_jax_rng()
        assert jnp.all(jax.random.key_data(ours) == jax.random.key_data(theirs))


def test_initialisers_that_need_no_key():
    for initialiser in _flax._NEED_NO_KEY:
        assert jnp.all(initialiser(None, (2,)) == initialiser(KEY, (2,)))


def test_partial_pack_has_rng_filters_where_it_reads_rngs():
    assert "rng_filters" in inspect.signature(lift._partial_pack).parameters
    source = inspect.getsource(lift._partial_pack)
    assert "group_collections(scope.rngs, rng_filters)" in source


def test_the_stack_of_interceptors():
    assert not _flax.is_intercepted()
    with nn.intercept_methods(lambda run, args, kwargs, context: run(*args, **kwargs)):
        assert _flax.is_intercepted()
        assert len(linen_module._global_interceptor_stack._storage) == 1


def test_interceptors_see_modules_in_lifted_transforms():
    seen = []

    def interceptor(next_fun, args, kwargs, context):
        seen.append(type(context.module).__name__)
        return next_fun(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        nn.remat(nn.Dense)(2).init(KEY, jnp.ones([1, 2]))
    assert "CheckpointDense" in seen


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
        assert isinstance(frame.frame_id, int)
        hk.remat(lambda: ids.append(base.current_frame().frame_id))()
        ids.append(frame.frame_id)

    ids = []
    hk.transform_with_state(forward).init(None)
    assert ids[0] > ids[1]


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
    assert _haiku.can_close

    def caught():
        with contextlib.suppress(Exception):
            ask()

    def forward(function):
        before = [len(stack) for stack in (base.frame_stack, base.context_stack)]
        with pytest.raises(_haiku.HaikuAsked):
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
    ask = lambda: _caller.module_name("default")
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


def test_a_getter_at_the_left_is_the_outermost():
    def getters():
        with hk.custom_getter(lambda next_getter, value, _: next_getter(value) * 2):
            base.param_getter_stack.pushleft(lambda get, value, _: get(value) + 1)
            try:
                return hk.get_parameter("w", [], init=jnp.ones)
            finally:
                base.param_getter_stack.popleft()

    f = hk.transform(getters)
    assert f.apply(f.init(None), None) == 3


def test_camel_to_snake():
    assert utils.camel_to_snake("LayerNorm2D") == "layer_norm2_d"
