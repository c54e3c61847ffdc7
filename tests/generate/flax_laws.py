"""What Flax defines: the bridge does what native Flax does."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax

import hk_bridge

from .cases import SETTINGS
from .cases import Case
from .cases import X
from .cases import is_float
from .cases import set_shift
from .cases import total
from .compare import Run
from .compare import Watched
from .compare import depends
from .compare import open_boxes
from .compare import same
from .compare import trace


def native_init(case: Case, rngs: Any) -> Any:
    made = case.make().init(rngs, X, **case.natively)
    return open_boxes({c: tree for c, tree in made.items() if c not in case.sown})


def built(case: Case, train: bool = True, name: str = "net", **options: Any) -> Any:
    """The module in Haiku."""
    return hk_bridge.FlaxModule(case.make(train), name=name, **options)


def bridged(case: Case, train: bool = True, **options: Any) -> Any:
    """A network of the module alone."""

    def forward(rngs: Any) -> Any:
        net = built(case, train)
        return net(X, rngs=rngs, **case.natively, **options)

    return hk.transform_with_state(forward)


def same_init(case: Case) -> None:
    """Init makes the same leaves, by the same program."""

    def ours(rngs: Any) -> Any:
        params, state = bridged(case).init(None, rngs)
        return hk_bridge.to_flax(params, state, name="net")

    rngs = case.rngs(init=True)
    same(trace(ours, rngs), trace(lambda rngs: native_init(case, rngs), rngs))


def runs(case: Case, train: bool = True, mutable: Any = None) -> tuple[Run, Run]:
    """Bridged and native `apply`: the output and the kept variables after it."""
    kept = tuple(c for c in case.specs if c != "params")

    def ours(variables: Any, rngs: Any) -> Any:
        params, state = hk_bridge.to_haiku(variables, name="net", collections=variables)
        watched = Watched((params, state))
        options = {} if mutable is None else {"mutable": mutable}
        f = bridged(case, train, **options)
        result, state = f.apply(params, state, None, rngs)
        watched.check()
        after = hk_bridge.to_flax({}, state, name="net")
        return (result, after) if mutable is None else open_boxes(result)

    def theirs(variables: Any, rngs: Any) -> Any:
        asked = (kept or False) if mutable is None else mutable
        result = case.make(train).apply(
            variables, X, rngs=rngs, mutable=asked, **case.natively
        )
        if asked is False:
            result = (result, {}) if mutable is None else result
        return open_boxes(result)

    start = case.specs
    natively = trace(theirs, start, case.rngs())
    return trace(ours, open_boxes(start), case.rngs()), natively


def same_apply(case: Case, train: bool = True, mutable: Any = None) -> None:
    """Apply computes the same, changes the same, and leaves the caller's trees."""
    same(*runs(case, train, mutable))


def same_again(case: Case, change: Callable[[], None]) -> None:
    """What the code depends on changed between two applies: the same, or refused."""
    same(*runs(case))
    change()
    try:
        same(*runs(case))
    finally:
        SETTINGS.width = 4
        set_shift(0.5)


def wider() -> None:
    SETTINGS.width = 3


def shifted() -> None:
    set_shift(0.25)


def gradient(function: Callable[[Any], Any], params: Any) -> Any:
    """The gradient of a total by the floats in `params`; the others as they are."""
    leaves, tree = jax.tree.flatten(params)
    places = [i for i, leaf in enumerate(leaves) if is_float(leaf)]

    def filled(values: Any) -> Any:
        new = dict(zip(places, values, strict=True))
        return tree.unflatten([new.get(i, leaf) for i, leaf in enumerate(leaves)])

    loss = lambda values: total(function(filled(values)))
    return filled(jax.grad(loss)([leaves[i] for i in places]))


def same_grad(case: Case, train: bool = True) -> None:
    """The gradient by the parameters is the same program."""
    kept = [c for c in case.specs if c != "params"]

    def ours(variables: Any, rngs: Any) -> Any:
        params, state = hk_bridge.to_haiku(variables, name="net", collections=variables)
        f = bridged(case, train)
        run = lambda params: f.apply(params, state, None, rngs)[0]
        return hk_bridge.to_flax(gradient(run, params), {}, name="net")

    def theirs(variables: Any, rngs: Any) -> Any:
        def run(params: Any) -> Any:
            full, options = {**variables, "params": params}, case.natively
            module = case.make(train)
            return module.apply(full, X, rngs=rngs, mutable=kept, **options)[0]

        return open_boxes({"params": gradient(run, variables["params"])})

    start = {"params": {}, **case.specs}
    natively = trace(theirs, start, case.rngs())
    same(trace(ours, open_boxes(start), case.rngs()), natively)


def keys_of_haiku(case: Case, train: bool = True) -> None:
    """With a Haiku key at hand the code sees every stream, as if all were given.

    And what is random natively is random by that key."""

    def ours(variables: Any, key: Any) -> Any:
        params, state = hk_bridge.to_haiku(variables, name="net", collections=variables)
        f = bridged(case, train)
        return f.apply(params, state, key, None)[0]

    natively = runs(case, train)[1]
    found = trace(ours, open_boxes(case.specs), jax.random.key(1))
    if natively.error is None:
        assert found.error is None, f"raises with keys of Haiku: {found.error!r}"
        assert found.saw == natively.saw, (
            f"with keys of Haiku the code saw {found.saw}, natively {natively.saw}"
        )
        if depends(natively, "[0]", "[1]"):
            assert depends(found, "", "[1]"), "the same for all keys of Haiku"
