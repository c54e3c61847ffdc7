"""The keywords of a call, and variables that are given and wrong."""

from collections.abc import Callable
from typing import Any

import flax.errors
import haiku as hk
import jax

import hk_bridge

from .cases import Case
from .cases import FailsNatively
from .cases import X
from .cases import zeros
from .compare import open_boxes
from .compare import same
from .compare import trace
from .flax_laws import built


def same_call(case: Case, method: Any, capture: Any, mutable: Any) -> None:
    """`method=`, `capture_intermediates=` and `mutable=` mean what they do in Flax."""
    kept = [c for c in case.specs if c != "params"]
    options = {"capture_intermediates": capture}
    if mutable is not None:
        options["mutable"] = mutable

    def ours(variables: Any, rngs: Any) -> Any:
        params, state = hk_bridge.to_haiku(variables, name="net", collections=variables)

        def forward(rngs: Any) -> Any:
            net = built(case)
            way = Case(case.make, nnx=case.nnx, method=method).natively
            return net(X, rngs=rngs, **way, **options)

        f = hk.transform_with_state(forward)
        return open_boxes(f.apply(params, state, None, rngs)[0])

    def theirs(variables: Any, rngs: Any) -> Any:
        way = Case(case.make, nnx=case.nnx, method=method).natively
        asked = {"mutable": kept, **options, **way}
        result = case.make().apply(variables, X, rngs=rngs, **asked)
        if mutable is None and type(result) is tuple and len(result) == 2:
            result = result[0]
        return open_boxes(result)

    natively = trace(theirs, case.specs, case.rngs())
    same(trace(ours, open_boxes(case.specs), case.rngs()), natively)


Wrong = Callable[[Any], Any]


def first(tree: Any) -> Any:
    """The path of a leaf of a tree of dicts."""
    path = []
    while type(tree) is dict and tree:
        path.append(next(iter(tree)))
        tree = tree[path[-1]]
    return path, tree


def replaced(tree: Any, path: Any, value: Any) -> Any:
    """`tree` with another value at `path`."""
    if not path:
        return value
    return {**tree, path[0]: replaced(tree.get(path[0], {}), path[1:], value)}


def other_shape(tree: Any) -> Any:
    """A leaf of another shape."""
    path, leaf = first(tree)
    if not hasattr(leaf, "shape"):
        raise FailsNatively
    return replaced(tree, path, jax.numpy.zeros((*leaf.shape, 2), leaf.dtype))


def unknown_name(tree: Any) -> Any:
    """A leaf that the module never makes."""
    path, leaf = first(tree)
    return replaced(tree, [*path[:-1], "never_made"], leaf)


def unknown_level(tree: Any) -> Any:
    """A module that is not there."""
    return {**tree, "NeverMade_0": {"kernel": X}}


def missing_level(tree: Any) -> Any:
    """The outermost level is left out."""
    inner = [value for value in tree.values() if type(value) is dict and value]
    if not inner or set(inner[0]) <= set(tree):
        raise FailsNatively
    return inner[0]


def given_wrong(case: Case, wrong: Wrong, where: str) -> None:
    """Variables that are given and wrong are refused, by whom it may be."""
    start = jax.tree.map(zeros, open_boxes(case.specs))
    if not start.get(where):
        raise FailsNatively
    values = {**start, where: wrong(start[where])}
    if (
        wrong is other_shape
        and trace(
            lambda rngs: case.make().apply(values, X, rngs=rngs, mutable=True),
            case.rngs(),
        ).error
        is None
    ):
        raise FailsNatively  # Flax takes it

    def forward(rngs: Any) -> Any:
        return built(case, variables=values)(X, rngs=rngs)

    f = hk.transform_with_state(forward)
    error = trace(f.init, None, case.rngs(init=True)).error
    assert error is not None, f"{wrong.__name__} in variables= is accepted"
    ours = (hk_bridge.VariablesError, hk_bridge.StateStructureError)
    theirs = (flax.errors.FlaxError, TypeError, ValueError)
    assert isinstance(error, (*ours, *theirs)), f"refused by {error!r}"
