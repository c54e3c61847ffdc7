"""NNX modules as instances and as wrapped classes, against NNX alone."""

import collections
import contextlib
from typing import Any

from flax import nnx
import haiku as hk
import jax

import hk_bridge
from hk_bridge._core.traces import eagerly
from hk_bridge._proof.graph import Graph

from .cases import KEY
from .cases import Case
from .cases import FailsNatively
from .cases import X
from .compare import same
from .compare import trace
from .flax_laws import gradient


def instance(case: Case, train: bool) -> Any:
    if case.sown:
        raise FailsNatively  # inside transforms what is sown is in the program
    try:
        return case.nnx(train, rngs=nnx.Rngs(params=0, dropout=1, noise=2))
    except Exception as error:
        raise FailsNatively from error


def native(case: Case, module: Any) -> Graph:
    return Graph(module, case.method, frozenset(case.sown), None, False)


def kept(params: Any, state: Any) -> Any:
    return hk_bridge.to_flax(params, state, name="net", like={})


def nnx_init(case: Case) -> None:
    """A wrapped class has the values of `Cls(rngs=nnx.Rngs(**rngs))`."""
    rngs = case.rngs(init=True)

    def ours(rngs: Any) -> Any:
        def forward() -> Any:
            net: Any = hk_bridge.wrap(case.nnx)(name="net")
            return net(X, rngs=rngs)

        return kept(*hk.transform_with_state(forward).init(None))

    def theirs(rngs: Any) -> Any:
        module = case.nnx(rngs=nnx.Rngs(**rngs))
        held = native(case, module).init(None)
        nnx.clone(module)(X)
        return held

    same(trace(ours, rngs), trace(theirs, rngs))


def nnx_apply(case: Case, train: bool = True, how: str = "instance") -> None:
    """Apply computes the same, changes the same, and leaves the instance alone."""
    module = instance(case, train)
    before = jax.tree.leaves(nnx.state(module))
    side = native(case, module)
    start = side.init(None)

    def forward(rngs: Any) -> Any:
        if how == "wrapped":
            net: Any = hk_bridge.wrap(case.nnx)(train, name="net")
        else:
            net = hk_bridge.FlaxModule(module, name="net")
        output = net(X, rngs=rngs, method=case.method)
        if how == "twice":
            output = output, net(X, rngs=rngs, method=case.method)
        return output

    def ours(variables: Any, rngs: Any) -> Any:
        params, state = hk_bridge.to_haiku(variables, name="net", collections=variables)
        with contextlib.ExitStack() as sharing:
            if how == "shared":
                sharing.enter_context(eagerly())
                sharing.enter_context(hk_bridge.share_traces())
            f = hk.transform_with_state(forward)
            output, state = f.apply(params, state, None, rngs)
        return output, kept(params, state)

    def theirs(variables: Any, rngs: Any) -> Any:
        output, after = side.apply((rngs, (X,), {}), variables)
        if how == "twice":
            second, after = side.apply((rngs, (X,), {}), after)
            output = output, second
        return output, after

    same(trace(ours, start, case.rngs()), trace(theirs, start, case.rngs()))
    after = jax.tree.leaves(nnx.state(module))
    assert all(new is old for new, old in zip(after, before, strict=True))


def nnx_grad(case: Case, train: bool = True) -> None:
    """The gradient by the parameters is the same program."""
    module = instance(case, train)
    side = native(case, module)
    start = {"params": {}, **side.init(None)}
    f = hk.transform_with_state(
        lambda rngs: hk_bridge.FlaxModule(module, name="net")(
            X, rngs=rngs, method=case.method
        )
    )

    def ours(variables: Any, rngs: Any) -> Any:
        params, state = hk_bridge.to_haiku(variables, name="net", collections=variables)
        run = lambda params: f.apply(params, state, None, rngs)[0]
        return kept(gradient(run, params), {})

    def theirs(variables: Any, rngs: Any) -> Any:
        def run(params: Any) -> Any:
            full = {**variables, "params": params}
            return side.apply((rngs, (X,), {}), full)[0]

        made = {"params": gradient(run, variables["params"])}
        return {c: tree for c, tree in made.items() if tree}

    same(trace(ours, start, case.rngs()), trace(theirs, start, case.rngs()))


def nnx_hooked(case: Case, train: bool = True) -> None:
    """Getters see each leaf once, at init and at apply."""
    module = instance(case, train)
    seen: collections.Counter[str] = collections.Counter()

    def look(get: Any, value: Any, context: Any) -> Any:
        seen[context.full_name] += 1
        return get(value)

    def forward() -> Any:
        with hk.custom_getter(look, params=True, state=True):
            net = hk_bridge.FlaxModule(module, name="net")
            return net(X, rngs=case.rngs(), method=case.method)

    f = hk.transform_with_state(forward)
    try:
        params, state = jax.eval_shape(f.init, KEY)
    except Exception as error:
        raise FailsNatively from error
    trees = {**params, **state}
    # Haiku's hooks of parameters are not asked about None.
    pairs = [(f"{m}/{n}", x) for m, b in trees.items() for n, x in b.items()]
    leaves = {name for name, leaf in pairs if leaf is not None}
    assert leaves <= set(seen), seen
    assert set(seen.values()) <= {1}, seen
    seen.clear()
    jax.eval_shape(f.apply, params, state, None)
    assert leaves <= set(seen), seen
    assert set(seen.values()) <= {1}, seen
