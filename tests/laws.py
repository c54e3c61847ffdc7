"""The laws: what holds for every case of the catalogue, exactly.

Each is a function of a case. Native Flax is run beside the bridge, with the same keys.
"""

from collections.abc import Callable
import functools
from typing import Any

from catalogue import Case
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp

import hk_bridge
from hk_bridge.testing import assert_identical
from hk_bridge.testing import equations
from hk_bridge.testing import total

NAME = "net"
Tree = Any


def once_a_case(f: Callable[[Case], Tree]) -> Callable[[Case], Tree]:
    """`f` with its last result kept: the laws of a case run one after the other."""
    kept: dict[Any, Tree] = {}

    @functools.wraps(f)
    def wrapper(case: Case) -> Tree:
        key = (case.name, case.bridge)
        if key not in kept:
            kept.clear()
            kept[key] = f(case)
        return copy_of_dicts(kept[key])

    return wrapper


def copy_of_dicts(tree: Tree) -> Tree:
    """`tree` with new dicts, so that a test may change what it is given."""
    return jax.tree.map(lambda x: x, tree)


# The case in pure Flax.


def kept(case: Case, variables: Tree) -> dict[str, Tree]:
    """`variables` less what lives for one call."""
    return {c: v for c, v in variables.items() if c not in case.sown}


@once_a_case
def flax_init(case: Case) -> dict[str, Tree]:
    rngs = case.rngs(0, init=True)
    variables = case.make().init(rngs, *case.args, method=case.method, **case.train)
    return kept(case, nn.unbox(variables))


def flax_apply(
    case: Case, variables: Tree, kwargs: Any, rngs: Any
) -> tuple[Tree, Tree]:
    """The output and the variables after the call."""
    mutable = [c for c in variables if c != "params"]
    output, mutated = case.make().apply(
        variables, *case.args, rngs=rngs, mutable=mutable, method=case.method, **kwargs
    )
    return output, {**variables, **mutated}


# The case in Haiku.


def network(case: Case, **options: Any) -> Callable[..., Any]:
    def forward(kwargs: Any, rngs: Any = None) -> Any:
        net = case.bridge(case.make(), name=NAME, **options)
        return net(*case.args, rngs=rngs, method=case.method, **kwargs)

    return forward


def transform(case: Case) -> hk.TransformedWithState:
    return hk.transform_with_state(network(case))


@once_a_case
def haiku_init(case: Case) -> tuple[Tree, Tree]:
    return transform(case).init(None, case.train, case.rngs(0, init=True))


def variables(params: Tree, state: Tree) -> dict[str, Tree]:
    return hk_bridge.to_flax(params, state, name=NAME)


def modes(case: Case) -> list[tuple[Any, Any]]:
    """`(kwargs, rngs)` in training and in evaluation."""
    pairs = [(case.train, case.rngs(1))]
    return pairs if case.test is None else [*pairs, (case.test, {})]


# Laws.


def same_init(case: Case) -> None:
    """Given the same `rngs`, every initial value is `module.init`'s."""
    assert_identical(variables(*haiku_init(case)), flax_init(case))


def same_apply(case: Case) -> None:
    """Outputs are `module.apply`'s, in training and in evaluation."""
    params, state = haiku_init(case)
    for kwargs, rngs in modes(case):
        ours, _ = transform(case).apply(params, state, None, kwargs, rngs)
        theirs, _ = flax_apply(case, flax_init(case), kwargs, rngs)
        assert_identical(ours, theirs)


def same_grad(case: Case) -> None:
    """Gradients by the parameters are Flax's."""
    params, state = haiku_init(case)
    flax_variables = flax_init(case)
    float_leaf = lambda x: jnp.issubdtype(jnp.asarray(x).dtype, jnp.floating)
    freeze = lambda tree: jax.tree.map(lambda x: x if float_leaf(x) else None, tree)
    thaw = lambda tree, full: jax.tree.map(
        lambda x, y: y if x is None else x, tree, full, is_leaf=lambda x: x is None
    )
    kwargs, rngs = modes(case)[0]

    def ours(p: Tree) -> jax.Array:
        out, _ = transform(case).apply(thaw(p, params), state, None, kwargs, rngs)
        return total(out)

    def theirs(p: Tree) -> jax.Array:
        full = thaw(p, flax_variables.get("params", {}))
        out, _ = flax_apply(case, {**flax_variables, "params": full}, kwargs, rngs)
        return total(out)

    grads = jax.grad(ours)(freeze(params))
    flax_grads = jax.grad(theirs)(freeze(flax_variables.get("params", {})))
    back = variables(grads, {}).get("params", {})
    assert_identical(jax.tree.leaves(back), jax.tree.leaves(flax_grads))


def same_state(case: Case) -> None:
    """State is Flax's, over several steps of training."""
    params, state = haiku_init(case)
    flax_variables = flax_init(case)
    for step in range(3):
        rngs = case.rngs(step)
        _, state = transform(case).apply(params, state, None, case.train, rngs)
        _, flax_variables = flax_apply(case, flax_variables, case.train, rngs)
        assert_identical(variables(params, state), flax_variables)


def same_jaxpr(case: Case) -> None:
    """Bridged and native `apply` trace to the same equations, in the same order."""
    params, state = haiku_init(case)
    for kwargs, rngs in modes(case):
        ours = jax.make_jaxpr(
            lambda p, s, r, kwargs=kwargs: transform(case).apply(p, s, None, kwargs, r)
        )(params, state, rngs)
        theirs = jax.make_jaxpr(
            lambda v, r, kwargs=kwargs: flax_apply(case, v, kwargs, r)
        )(flax_init(case), rngs)
        assert equations(ours.jaxpr) == equations(theirs.jaxpr)


def round_trip(case: Case) -> None:
    """`to_flax` and `to_haiku` are inverses, and carry boxes with `like=`."""
    params, state = haiku_init(case)
    tree = variables(params, state)
    assert_identical(hk_bridge.to_haiku(tree, name=NAME), (params, state))
    rngs = case.rngs(0, init=True)
    boxed = kept(
        case, case.make().init(rngs, *case.args, method=case.method, **case.train)
    )
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
    kwargs, rngs = modes(case)[-1]

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
    """In a constructor, a method, a scope or a remat, the numbers are the same."""
    params, state = haiku_init(case)
    kwargs, rngs = case.train, case.rngs(1)
    apply = lambda rngs: transform(case).apply(params, state, None, kwargs, rngs)
    eager, compiled = apply(rngs), jax.remat(apply)(rngs)  # which XLA rounds otherwise

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

    def in_remat(kwargs: Any, rngs: Any) -> Any:
        return hk.remat(lambda rngs: network(case)(kwargs, rngs))(rngs)

    for name, forward in {
        "outer/~/net": lambda kwargs, rngs: InInit().run(kwargs, rngs),
        "in_method/~run/net": lambda kwargs, rngs: InMethod().run(kwargs, rngs),
        "a/b/net": in_scope,
        "net": in_remat,
    }.items():
        f = hk.transform_with_state(forward)
        tree = variables(params, state)
        initial = f.init(None, kwargs, case.rngs(0, init=True))
        assert_identical(hk_bridge.to_flax(*initial, name=name), tree)
        output, new_state = f.apply(*initial, None, kwargs, rngs)
        expected = compiled if forward is in_remat else eager
        assert_identical(output, expected[0])
        assert_identical(
            hk_bridge.to_flax({}, new_state, name=name),
            hk_bridge.to_flax({}, expected[1], name=NAME),
        )


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
]
