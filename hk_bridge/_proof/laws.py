"""What it means that a module is the same in Haiku as in Flax, law by law."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge._proof import sides
from hk_bridge._proof.sides import NotInFlax
from hk_bridge._proof.sides import Pair
from hk_bridge._proof.sides import Programs
from hk_bridge._proof.sides import Tree


def assert_identical(ours: Tree, theirs: Tree) -> None:
    """Same structure, types, dtypes and bits."""
    trees: list[Any] = [jax.tree.structure(tree) for tree in (ours, theirs)]
    assert trees[0] == trees[1], f"structure: {trees[0]} in Haiku, {trees[1]} in Flax"
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        where = jax.tree_util.keystr(path) or "the output"
        a, b = (leaf if _is_key(leaf) else np.asarray(leaf) for leaf in (a, b))
        kinds = (_abstract.describe(a), _abstract.describe(b))
        assert kinds[0] == kinds[1], f"{where}: {kinds[0]} in Haiku, {kinds[1]} in Flax"
        if _is_key(b):
            a, b = (np.asarray(jax.random.key_data(keys)) for keys in (a, b))
        if a.dtype == object:
            same = _abstract.are_equal([*a.flat], [*b.flat])
        else:
            same = a.tobytes() == b.tobytes()
        assert same, f"{where}: other bits{_distance(a, b)}"


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(
        leaf.dtype, jax.dtypes.prng_key
    )


def _distance(a: Any, b: Any) -> str:
    if not jnp.issubdtype(a.dtype, np.inexact):
        return ""
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    gap = np.abs(a.astype(wide) - b.astype(wide)).max()
    return f", {gap:.3g} apart at most"


# The laws. Each raises AssertionError, or returns what it compared, in words.


def same_init(pair: Pair) -> str:
    """Given the same `rngs`, every initial value is `module.init`'s."""
    assert_identical(pair.bridged.to_flax(*pair.haiku_start), pair.start)
    return _count(pair.start, "leaf", "leaves")


def same_apply(pair: Pair) -> str:
    """Outputs are `module.apply`'s."""
    inputs = pair.at_step(0)
    theirs, _ = pair.native.apply(inputs, pair.start)
    ours, _ = pair.bridged.haiku_apply(inputs, *pair.haiku_start)
    assert_identical(ours, theirs)
    return _count(theirs, "array", "arrays")


def same_grad(pair: Pair) -> str:
    """Gradients by the parameters are Flax's.

    Raises `NotInFlax` where Flax has none.
    """
    given = pair.at_step(0), pair.start
    theirs = sides.natively(sides.grad, pair.native, *given)
    assert_identical(sides.grad(pair.bridged, *given), theirs)
    return _count(theirs, "leaf", "leaves")


def same_state(pair: Pair, steps: int = 3) -> str:
    """State is Flax's, over several calls."""
    variables = pair.start
    params, state = pair.haiku_start
    for step in range(steps):
        inputs = pair.at_step(step)
        _, variables = pair.native.apply(inputs, variables)
        _, state = pair.bridged.haiku_apply(inputs, params, state)
        try:
            assert_identical(pair.bridged.to_flax(params, state), variables)
        except AssertionError as error:
            raise AssertionError(f"step {step + 1}: {error}") from None
    kept = {c: tree for c, tree in variables.items() if c != _layout.PARAMS}
    return f"{_count(kept, 'leaf', 'leaves')}, {steps} steps"


def same_program(pair: Pair) -> str:
    """Init, apply and, where Flax has one, the gradient trace to the same programs.

    So they agree for all inputs, and not only for those that were tried.
    """
    assert_same("init", init_programs(pair))
    assert_same("apply", apply_programs(pair))
    try:
        gradient = grad_programs(pair)
    except NotInFlax:
        return "init and apply"
    assert_same("gradient", gradient)
    return "init, apply and gradient"


def assert_same(name: str, programs: Programs) -> None:
    """Says how the programs of both sides differ, if they do."""
    difference = programs.difference()
    assert difference is None, f"{name}: {difference}"


def init_programs(pair: Pair) -> Programs:
    """The programs of init, which give all variables."""
    run: Callable[..., Any] = lambda side, *xs: side.init(*xs)
    return sides.programs(pair, run, pair.at_init)


def apply_programs(pair: Pair) -> Programs:
    """The programs of one call, which give the output and the variables after it."""
    run: Callable[..., Any] = lambda side, *xs: side.apply(*xs)
    return sides.programs(pair, run, pair.at_step(0), pair.spec)


def grad_programs(pair: Pair) -> Programs:
    """The programs of the gradients by the parameters."""
    return sides.programs(pair, sides.grad, pair.at_step(0), pair.spec)


def _count(tree: Tree, one: str, many: str) -> str:
    count = len(jax.tree.leaves(tree))
    return f"{count} {one if count == 1 else many}"
