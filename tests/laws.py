"""The laws: what holds for every case of the catalogue, exactly.

Each is a function of a case. Native Flax is traced beside the bridge, with the same
keys: equal programs give equal numbers for all inputs, and nothing is compiled.
"""

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import dataclasses
import functools
from typing import Any

from catalogue import Case
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import pytest

import hk_bridge
from hk_bridge import _abstract
from hk_bridge import testing
from hk_bridge._core.traces import eagerly
from hk_bridge._proof import program as _program

NAME = "net"
Tree = Any


def copy_of_dicts(tree: Tree) -> Tree:
    """`tree` with new dicts, so that a test may change what it is given."""
    return jax.tree.map(lambda x: x, tree)


def assert_same_leaves(ours: Tree, theirs: Tree) -> None:
    """Same structure, and the very same leaves."""
    leaves, others = map(jax.tree.leaves, (ours, theirs))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert all(a is b for a, b in zip(leaves, others, strict=True))


def assert_same_program(
    one: _abstract.Traced, two: _abstract.Traced, transparent: Collection[str] = ()
) -> None:
    """Two traced functions give the same, for all arrays."""
    assert _abstract.are_equal(one.output, two.output)
    difference = _program.difference(
        one.program, two.program, outputs=two.path, transparent=transparent
    )
    assert difference is None, difference


# The case, natively and bridged.


class Sides:
    """A case on both sides, and the programs that its laws compare others with."""

    def __init__(self, case: Case):
        self.case = case
        self.pairs = fresh_pairs(case)

    @functools.cached_property
    def init(self) -> _abstract.Traced:
        """What makes Haiku's params and state of keys."""
        init = lambda rngs: transform(self.case).init(None, self.case.train, rngs)
        return _abstract.trace(init, self.case.rngs(0, init=True))

    @functools.cached_property
    def apply(self) -> _abstract.Traced:
        """What makes an output and new state of variables and keys, in training."""
        return _abstract.trace(self.run, self.spec, self.case.rngs(1))

    @property
    def spec(self) -> Tree:
        """The variables that Haiku holds at the start, by shape and dtype."""
        return variables(*self.pairs[0].haiku_spec)

    def run(self, tree: Tree, rngs: Any) -> tuple[Tree, Tree]:
        """One call in training, from variables to variables."""
        trees = hk_bridge.to_haiku(tree, name=NAME, collections=tree)
        output, state = transform(self.case).apply(*trees, None, self.case.train, rngs)
        return output, variables({}, state)


_last: dict[Any, Sides] = {}


def sides(case: Case) -> Sides:
    """The last one is kept, with what it traced: the laws of a case run in a row."""
    key = (case.name, case.bridge)
    if key not in _last:
        _last.clear()
        _last[key] = Sides(case)
    return _last[key]


def pairs(case: Case) -> list[testing.Pair]:
    """How the case is called in training and, if it says how, in evaluation."""
    return sides(case).pairs


def fresh_pairs(case: Case) -> list[testing.Pair]:
    module = case.make()
    training = testing.Pair(
        module=module,
        build=lambda: case.bridge(module, name=NAME),
        name=NAME,
        args=case.args,
        kwargs=case.train,
        method=case.method,
        init_rngs=case.rngs(0, init=True),
        rngs=case.rngs,
        sown=frozenset(case.sown),
        keep_rngs=getattr(case.bridge, "keywords", {}).get("keep_rngs", False),
    )
    if case.test is None:
        return [training]
    evaluation = dataclasses.replace(training, kwargs=case.test, rngs=lambda step: {})
    return [training, evaluation]


def flax_init(case: Case) -> dict[str, Tree]:
    return copy_of_dicts(pairs(case)[0].start)


def flax_apply(
    case: Case, variables: Tree, kwargs: Any, rngs: Any
) -> tuple[Tree, Tree]:
    """The output and the variables after the call."""
    pair = dataclasses.replace(fresh_pairs(case)[0], kwargs=kwargs)
    return pair.native.apply(pair.at_step(0)._replace(rngs=rngs), variables)


def network(case: Case, **options: Any) -> Callable[..., Any]:
    def forward(kwargs: Any, rngs: Any = None) -> Any:
        net = case.bridge(case.make(), name=NAME, **options)
        return net(*case.args, rngs=rngs, method=case.method, **kwargs)

    return forward


def transform(case: Case) -> hk.TransformedWithState:
    return hk.transform_with_state(network(case))


def haiku_init(case: Case) -> tuple[Tree, Tree]:
    return copy_of_dicts(pairs(case)[0].haiku_start)


def variables(params: Tree, state: Tree) -> dict[str, Tree]:
    return hk_bridge.to_flax(params, state, name=NAME)


# Laws of values: those of `hk_bridge.testing.check`. Equal programs have equal values,
# so these are asked only of a case that says in `values` why that is not enough, and of
# all cases by `pytest --whole`.


def same_init(case: Case) -> None:
    """Given the same `rngs`, every initial value is `module.init`'s."""
    testing.same_init(pairs(case)[0])


def same_apply(case: Case) -> None:
    """Outputs are `module.apply`'s, in training and in evaluation."""
    for pair in pairs(case):
        testing.same_apply(pair)


def same_grad(case: Case) -> None:
    """Gradients by the parameters are Flax's."""
    with gradient_may_lack():
        testing.same_grad(pairs(case)[0])


@contextlib.contextmanager
def gradient_may_lack() -> Iterator[None]:
    """Ends the block where no parameter or no output is a float."""
    try:
        yield
    except testing.NotInFlax as why:
        if not str(why).endswith("are floats"):
            raise


def same_state(case: Case) -> None:
    """State is Flax's, over several steps of training."""
    testing.same_state(pairs(case)[0])


# Laws of structure. Each traces.


def same_program(case: Case) -> None:
    """Init, apply in training and in evaluation, and the gradient are Flax's."""
    training, *evaluation = pairs(case)
    testing.assert_same("init", testing.init_programs(training))
    for pair in (training, *evaluation):
        testing.assert_same("apply", testing.apply_programs(pair))
    with gradient_may_lack():
        if "same_grad" not in case.skip:
            testing.assert_same("gradient", testing.grad_programs(training))


def round_trip(case: Case) -> None:
    """`to_flax` and `to_haiku` are inverses, and carry boxes with `like=`."""
    params, state = pairs(case)[0].haiku_spec
    tree = variables(params, state)
    assert_same_leaves(
        hk_bridge.to_haiku(tree, name=NAME, collections=tree), (params, state)
    )

    def init(rngs: Any) -> Any:
        return case.make().init(rngs, *case.args, method=case.method, **case.train)

    boxed = _abstract.evaluate(init, case.rngs(0, init=True))
    boxed = {c: v for c, v in boxed.items() if c not in case.sown}
    reboxed = hk_bridge.to_flax(params, state, name=NAME, like=boxed)
    assert jax.tree.structure(reboxed) == jax.tree.structure(boxed)
    again = hk_bridge.to_haiku(reboxed, name=NAME, collections=reboxed)
    assert_same_leaves(again, (params, state))
    other = {"linear": {"w": jnp.ones([1])}, f"{NAME}_1": {"w": jnp.ones([1])}}
    more = ({**params, **other}, {**state, **other})
    assert_same_leaves(hk_bridge.to_flax(*more, name=NAME, like=boxed), reboxed)


def two_level(case: Case) -> None:
    """Params and state are `{str: {str: leaf}}`."""
    for tree in pairs(case)[0].haiku_spec:
        assert type(tree) is dict
        for module_name, bundle in tree.items():
            assert module_name.split("/")[0] == NAME
            assert type(bundle) is dict
            for name, leaf in bundle.items():
                assert type(name) is str
                assert "/" not in name
                assert not isinstance(leaf, dict)


def names(tree: Tree) -> list[str]:
    return sorted(f"{m}/{k}" for m, bundle in tree.items() for k in bundle)


def hooks_see_every_leaf(case: Case) -> None:
    """Creators, getters and setters are called once a leaf, with its full name."""
    created, state_created, got, state_got, put = [], [], [], [], []

    def creator(log: list[str]) -> Any:
        def hook(
            next_creator: Any, shape: Any, dtype: Any, init: Any, context: Any
        ) -> Any:
            log.append(context.full_name)
            return next_creator(shape, dtype, init)

        return hook

    def getter(log: list[str]) -> Any:
        def hook(next_getter: Any, value: Any, context: Any) -> Any:
            log.append(context.full_name)
            return next_getter(value)

        return hook

    def forward(kwargs: Any, rngs: Any) -> Any:
        with (
            hk.custom_creator(creator(created)),
            hk.custom_creator(creator(state_created), params=False, state=True),
            hk.custom_getter(getter(got)),
            hk.custom_getter(getter(state_got), params=False, state=True),
            hk.custom_setter(getter(put)),
        ):
            return network(case)(kwargs, rngs)

    f = hk.transform_with_state(forward)
    hooked = lambda rngs: f.init(None, case.train, rngs)
    traced = _abstract.trace(hooked, case.rngs(0, init=True))
    assert_same_program(traced, sides(case).init)
    params, state = pairs(case)[0].haiku_spec
    assert sorted(created) == sorted(got) == names(params)
    assert sorted(state_created) == sorted(state_got) == names(state)
    del got[:], state_got[:], put[:]
    _abstract.evaluate(f.apply, params, state, None, case.train, case.rngs(1))
    assert sorted(got) == names(params)
    assert sorted(state_got) == names(state)
    assert set(put) <= set(names(state))
    assert len(set(put)) == len(put)


def state_keeps_its_structure(case: Case) -> None:
    """The treedef after `apply` is the one before, and a jitted step compiles once."""
    params, state = pairs(case)[0].haiku_spec
    traces = 0

    @jax.jit
    def step(params: Tree, state: Tree, rngs: Tree) -> Tree:
        nonlocal traces
        traces += 1
        return transform(case).apply(params, state, None, case.train, rngs)[1]

    for i in range(3):
        new = step.eval_shape(params, state, case.rngs(i))
        assert jax.tree.structure(new) == jax.tree.structure(state)
        state = new
    assert traces == 1


def called(module: Any, method: Any, *args: Any, **kwargs: Any) -> Any:
    """What `method`, as `module.apply` takes it, gives of a bound module."""
    if method is None:
        return module(*args, **kwargs)
    if isinstance(method, str):
        return getattr(module, method)(*args, **kwargs)
    return method(module, *args, **kwargs)


def one_pass_init(case: Case) -> None:
    """The module's code runs once in `init` and once in `apply`."""
    runs = 0

    class Counted(nn.Module):
        inner: nn.Module

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal runs
            runs += 1
            return called(self.inner, case.method, *args, **kwargs)

    def forward(kwargs: Any, rngs: Any) -> Any:
        net = case.bridge(Counted(case.make()), name=NAME)
        return net(*case.args, rngs=rngs, **kwargs)

    f = hk.transform_with_state(forward)
    start = _abstract.evaluate(f.init, None, case.train, case.rngs(0, init=True))
    assert runs == 1
    _abstract.evaluate(f.apply, *start, None, case.train, case.rngs(1))
    assert runs == 2


def calls_agree_in_init(case: Case) -> None:
    """Calls during init agree with each other and with what `apply` gives."""
    pair = pairs(case)[-1]

    outputs = []

    def forward(rngs: Any, later: Any) -> None:
        net = case.bridge(case.make(), name=NAME)
        net(*case.args, rngs=rngs, method=case.method, **case.train)
        options = {"method": case.method, "mutable": False, **pair.kwargs}
        outputs[:] = [net(*case.args, rngs=later, **options) for _ in range(2)]

    def init(later: Any, rngs: Any, which: int) -> Any:
        start = hk.transform_with_state(forward).init(None, rngs, later)
        return [*outputs, start][which]

    later, rngs = pair.rngs(1), case.rngs(0, init=True)
    one, two = (_abstract.trace(init, later, rngs, which) for which in range(2))
    assert_same_program(one, two)
    start = _abstract.trace(lambda rngs: init(later, rngs, 2), rngs)
    assert_same_program(start, sides(case).init)


def placement_does_not_matter(case: Case) -> None:
    """In a constructor, a method or a scope, the numbers are the same."""
    kwargs, rngs = case.train, case.rngs(0, init=True)

    class InInit(hk.Module):
        def __init__(self) -> None:
            super().__init__(name="outer")
            self.net = case.bridge(case.make(), name=NAME)

        def run(self, kwargs: Any, rngs: Any) -> Any:
            return self.net(*case.args, rngs=rngs, method=case.method, **kwargs)

    class InMethod(hk.Module):
        def run(self, kwargs: Any, rngs: Any) -> Any:
            return network(case)(kwargs, rngs)

    def in_scope(kwargs: Any, rngs: Any) -> Any:
        with hk.name_scope("a/b"):
            return network(case)(kwargs, rngs)

    for name, forward in {
        "outer/~/net": lambda kwargs, rngs: InInit().run(kwargs, rngs),
        "in_method/~run/net": lambda kwargs, rngs: InMethod().run(kwargs, rngs),
        "a/b/net": in_scope,
    }.items():
        f = hk.transform_with_state(forward)

        def init(rngs: Any, f: Any = f, name: str = name) -> Tree:
            tree = hk_bridge.to_flax(*f.init(None, kwargs, rngs), name=name)
            return hk_bridge.to_haiku(tree, name=NAME, collections=tree)

        def apply(tree: Tree, rngs: Any, f: Any = f, name: str = name) -> Tree:
            trees = hk_bridge.to_haiku(tree, name=name, collections=tree)
            output, state = f.apply(*trees, None, kwargs, rngs)
            return output, hk_bridge.to_flax({}, state, name=name)

        own = sides(case)
        assert_same_program(_abstract.trace(init, rngs), own.init)
        traced = _abstract.trace(apply, own.spec, case.rngs(1))
        assert_same_program(traced, own.apply)


def remat_does_not_matter(case: Case) -> None:
    """Under `hk.remat`, the program is the one without, but for when it runs."""
    kwargs = case.train

    def forward(rngs: Any) -> Any:
        return hk.remat(lambda rngs: network(case)(kwargs, rngs))(rngs)

    f, own = hk.transform_with_state(forward), sides(case)
    init = lambda rngs: f.init(None, rngs)
    traced = _abstract.trace(init, case.rngs(0, init=True))
    assert_same_program(traced, own.init, transparent=REMAT)

    def apply(tree: Tree, rngs: Any) -> Tree:
        output, state = f.apply(
            *hk_bridge.to_haiku(tree, name=NAME, collections=tree), None, rngs
        )
        return output, variables({}, state)

    # Remat makes arrays of numbers, so it is on both sides.
    inputs = own.spec, case.rngs(1)
    one, two = (_abstract.trace(run, *inputs) for run in (apply, jax.remat(own.run)))
    assert_same_program(one, two, transparent=REMAT)


class Six(nn.Module):
    """Six equal modules, of which those that call no other are shared, too."""

    make: Callable[[], nn.Module]
    method: Any = None

    @nn.compact
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        modules = [self.make() for _ in range(6)]
        return [called(module, self.method, *args, **kwargs) for module in modules]


def sharing_does_not_matter(case: Case, around: Any = Six) -> None:
    """Of equal modules, the program is the one without `share_traces`.

    They are side by side, with keys that are given and with Haiku's, and in one."""

    def forward(rngs: Any) -> Any:
        outputs = []
        for i in range(6):
            net = case.bridge(case.make(), name=f"{NAME}_{i}")
            options = {"rngs": (rngs, None)[i % 2], "method": case.method}
            outputs.append(net(*case.args, **options, **case.train))
        outer = case.bridge(around(case.make, case.method), name="around")
        return outputs, outer(*case.args, **case.train)

    def shared(rngs: Any) -> Any:
        with eagerly(), hk_bridge.share_traces():
            return forward(rngs)

    rngs, key = case.rngs(1), jax.random.key(2)
    sides = [hk.transform_with_state(f) for f in (shared, forward)]
    start = _abstract.evaluate(sides[1].init, key, case.rngs(0, init=True))
    one, two = (_abstract.trace(f.apply, *start, key, rngs) for f in sides)
    assert_same_program(one, two)


# One of each kind: state, keys, sown values, lifted transforms, trees, no arrays. Laws
# that ask again of a module what others asked are asked of these, and of all others by
# `pytest --whole`.
ONE_OF_EACH_KIND = frozenset([
    "leaves", "shared_by_field", "field", "no_params", "method_function", "values",
    "variables", "by_hand", "streams", "batch_norm", "sow", "scan", "remat", "jit",
    "boxes", "data", "rnn", "nnx_batch_norm", "nnx_dropout", "nnx_jit", "nnx_shared",
])  # fmt: skip


REMAT = ("checkpoint", "remat2")  # the primitive's name, by version


LAWS_OF_VALUES = [same_init, same_apply, same_grad, same_state]
LAWS = [
    *LAWS_OF_VALUES,
    same_program,
    round_trip,
    two_level,
    hooks_see_every_leaf,
    state_keeps_its_structure,
    one_pass_init,
    calls_agree_in_init,
    placement_does_not_matter,
    remat_does_not_matter,
    sharing_does_not_matter,
]


# Around a module, or once more: what is in it, `same_program` has seen.
AGAIN = frozenset([
    "placement_does_not_matter", "remat_does_not_matter", "sharing_does_not_matter",
    "calls_agree_in_init", "instance_stays",
])  # fmt: skip


def _is_weekly(law: Any, case: Case) -> bool:
    if law.__name__ in AGAIN:
        return case.name not in ONE_OF_EACH_KIND
    return law in LAWS_OF_VALUES and not case.values


def parameters(cases: list[Case], laws: list[Any] = LAWS) -> list[Any]:
    """Every case with every law but those that it names, with a reason, in `skip`."""
    return [
        pytest.param(
            law,
            case,
            id=f"{law.__name__}-{case}",
            marks=[pytest.mark.weekly] * _is_weekly(law, case),
        )
        for case in cases
        for law in laws
        if law.__name__ not in case.skip
        if law in LAWS_OF_VALUES or not case.eager
    ]
