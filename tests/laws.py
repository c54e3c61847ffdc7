"""The laws: what holds for every case of the catalogue, exactly.

Each is a function of a case. Native Flax is run beside the bridge, with the same keys.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from catalogue import Case
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp

import hk_bridge
from hk_bridge import testing
from hk_bridge.testing import assert_identical

NAME = "net"
Tree = Any


def copy_of_dicts(tree: Tree) -> Tree:
    """`tree` with new dicts, so that a test may change what it is given."""
    return jax.tree.map(lambda x: x, tree)


# The case, natively and bridged.


_last: dict[Any, list[testing.Pair]] = {}


def pairs(case: Case) -> list[testing.Pair]:
    """How the case is called in training and, if it says how, in evaluation.

    They keep what they started with, and the last ones are kept: the laws of a case run
    one after the other."""
    key = (case.name, case.bridge)
    if key not in _last:
        _last.clear()
        _last[key] = fresh_pairs(case)
    return _last[key]


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
    )
    if case.test is None:
        return [training]
    evaluation = dataclasses.replace(training, kwargs=case.test, rngs=lambda step: {})
    return [training, evaluation]


def flax_init(case: Case) -> dict[str, Tree]:
    return copy_of_dicts(pairs(case)[0].flax_start)


def flax_apply(
    case: Case, variables: Tree, kwargs: Any, rngs: Any
) -> tuple[Tree, Tree]:
    """The output and the variables after the call."""
    pair = dataclasses.replace(fresh_pairs(case)[0], kwargs=kwargs)
    return pair.flax_apply(variables, rngs)


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


# Laws. The first five are those of `hk_bridge.testing.check`.


def same_init(case: Case) -> None:
    """Given the same `rngs`, every initial value is `module.init`'s."""
    testing.same_init(pairs(case)[0])


def same_apply(case: Case) -> None:
    """Outputs are `module.apply`'s, in training and in evaluation."""
    for pair in pairs(case):
        testing.same_apply(pair)


def same_grad(case: Case) -> None:
    """Gradients by the parameters are Flax's."""
    testing.same_grad(pairs(case)[0])


def same_state(case: Case) -> None:
    """State is Flax's, over several steps of training."""
    testing.same_state(pairs(case)[0])


def same_jaxpr(case: Case) -> None:
    """Bridged and native `apply` trace to the same equations, in the same order."""
    for pair in pairs(case):
        testing.same_jaxpr(pair)


def round_trip(case: Case) -> None:
    """`to_flax` and `to_haiku` are inverses, and carry boxes with `like=`."""
    params, state = haiku_init(case)
    tree = variables(params, state)
    assert_identical(hk_bridge.to_haiku(tree, name=NAME), (params, state))
    rngs = case.rngs(0, init=True)
    boxed = case.make().init(rngs, *case.args, method=case.method, **case.train)
    boxed = {c: v for c, v in boxed.items() if c not in case.sown}
    assert_identical(hk_bridge.to_flax(params, state, name=NAME, like=boxed), boxed)
    other = {"linear": {"w": jnp.ones([1])}, f"{NAME}_1": {"w": jnp.ones([1])}}
    assert_identical(variables({**params, **other}, {**state, **other}), tree)


def two_level(case: Case) -> None:
    """Params and state are `{str: {str: leaf}}`."""
    for tree in haiku_init(case):
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
    params, state = f.init(None, case.train, case.rngs(0, init=True))
    assert_identical((params, state), haiku_init(case))
    assert sorted(created) == sorted(got) == names(params)
    assert sorted(state_created) == sorted(state_got) == names(state)
    del got[:], state_got[:], put[:]
    f.apply(params, state, None, case.train, case.rngs(1))
    assert sorted(got) == names(params)
    assert sorted(state_got) == names(state)
    assert set(put) <= set(names(state))
    assert len(set(put)) == len(put)


def state_keeps_its_structure(case: Case) -> None:
    """The treedef after `apply` is the one before, and a jitted step compiles once."""
    params, state = haiku_init(case)
    traces = 0

    @jax.jit
    def step(params: Tree, state: Tree, rngs: Tree) -> Tree:
        nonlocal traces
        traces += 1
        return transform(case).apply(params, state, None, case.train, rngs)[1]

    for i in range(3):
        new = step(params, state, case.rngs(i))
        assert jax.tree.structure(new) == jax.tree.structure(state)
        state = new
    assert traces == 1


def one_pass_init(case: Case) -> None:
    """The module's code runs once in `init` and once in `apply`."""
    runs = 0

    class Counted(nn.Module):
        inner: nn.Module

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal runs
            runs += 1
            method = case.method
            if method is None:
                return self.inner(*args, **kwargs)
            if isinstance(method, str):
                return getattr(self.inner, method)(*args, **kwargs)
            return method(self.inner, *args, **kwargs)

    def forward(kwargs: Any, rngs: Any) -> Any:
        net = hk_bridge.FlaxModule(Counted(case.make()), name=NAME)
        return net(*case.args, rngs=rngs, **kwargs)

    f = hk.transform_with_state(forward)
    params, state = f.init(None, case.train, case.rngs(0, init=True))
    assert runs == 1
    f.apply(params, state, None, case.train, case.rngs(1))
    assert runs == 2


def calls_agree_in_init(case: Case) -> None:
    """Calls during init agree with each other and with what `apply` gives."""
    outputs = []
    pair = pairs(case)[-1]
    kwargs, rngs = pair.kwargs, pair.rngs(1)

    def forward(rngs: Any) -> None:
        net = case.bridge(case.make(), name=NAME)
        net(*case.args, rngs=case.rngs(0, init=True), method=case.method, **case.train)
        for _ in range(2):
            output = net(
                *case.args, rngs=rngs, method=case.method, mutable=False, **kwargs
            )
            outputs.append(output)

    f = hk.transform_with_state(forward)
    params, state = f.init(None, rngs)
    assert_identical((params, state), haiku_init(case))
    assert_identical(outputs[0], outputs[1])


def placement_does_not_matter(case: Case) -> None:
    """In a constructor, a method or a scope, the numbers are the same."""
    params, state = haiku_init(case)
    kwargs, rngs = case.train, case.rngs(1)
    expected = transform(case).apply(params, state, None, kwargs, rngs)

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
        initial = f.init(None, kwargs, case.rngs(0, init=True))
        tree = hk_bridge.to_flax(*initial, name=name)
        assert_identical(tree, variables(params, state))
        output, new_state = f.apply(*initial, None, kwargs, rngs)
        assert_identical(output, expected[0])
        assert_identical(
            hk_bridge.to_flax({}, new_state, name=name), variables({}, expected[1])
        )


def remat_does_not_matter(case: Case) -> None:
    """Under `hk.remat`, the numbers are those of the compiled program."""
    params, state = haiku_init(case)
    kwargs, rngs = case.train, case.rngs(1)
    apply = lambda rngs: transform(case).apply(params, state, None, kwargs, rngs)

    def forward(rngs: Any) -> Any:
        return hk.remat(lambda rngs: network(case)(kwargs, rngs))(rngs)

    f = hk.transform_with_state(forward)
    assert_identical(f.init(None, case.rngs(0, init=True)), (params, state))
    assert_identical(f.apply(params, state, None, rngs), jax.remat(apply)(rngs))


LAWS = [
    same_init,
    same_apply,
    same_grad,
    same_state,
    same_jaxpr,
    round_trip,
    two_level,
    hooks_see_every_leaf,
    state_keeps_its_structure,
    one_pass_init,
    calls_agree_in_init,
    placement_does_not_matter,
    remat_does_not_matter,
]
