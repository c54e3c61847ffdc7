"""Sends Flax's own tests through Haiku: the one place that patches Flax.

A test of Flax calls `module.init`, `module.init_with_output` or `module.apply`. While
`rerouted()` is in force, each such call of a module without a scope runs
`FlaxModule(module)` under `hk.transform_with_state`, and what Haiku then holds goes
back to the test as the variables that Flax would have returned. `Module.init` and
`Module.lazy_init` call `init_with_output`, so two methods are patched.

Calls stay native if they are made by another one (by a module, or by Flax for it), or
if they have no counterpart in Haiku.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import functools
import operator
import threading
from typing import Any

import flax
import flax.linen as nn
import haiku as hk
import jax

import hk_bridge

Variables = Mapping[str, Any]

NAME = "net"
# The collections into which Flax's tests sow. All others have to come from Haiku.
SOWN = {"foo", "intermediates", "perturbations"}
SOWN |= {"params_axes", "stats_axes", "test_axes"}  # by flax.linen.partitioning


@dataclasses.dataclass
class Calls:
    """How many outermost calls went through Haiku, and how many could not."""

    rerouted: int = 0
    native: int = 0


@contextlib.contextmanager
def rerouted() -> Iterator[Calls]:
    """Has the calls inside go through Haiku, and counts them."""
    calls, inside = Calls(), threading.local()
    with contextlib.ExitStack() as stack:
        for name, through_haiku in (("init_with_output", _init), ("apply", _apply)):
            native = getattr(nn.Module, name)
            patch = _outermost(native, through_haiku, calls, inside)
            stack.callback(setattr, nn.Module, name, native)
            setattr(nn.Module, name, patch)
        yield calls


def _outermost(
    native: Callable[..., Any],
    through_haiku: Callable[..., Any],
    calls: Calls,
    inside: threading.local,
) -> Callable[..., Any]:
    """`native`, which is `through_haiku` if no other call of the two is running."""

    @functools.wraps(native)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(inside, "call", False):
            return native(self, *args, **kwargs)
        inside.call = True
        try:
            if not _has_counterpart(native, self, args, kwargs):
                calls.native += 1
                return native(self, *args, **kwargs)
            calls.rerouted += 1
            return through_haiku(self, *args, **kwargs)
        finally:
            inside.call = False

    return method


def _has_counterpart(
    native: Callable[..., Any], self: Any, args: Any, kwargs: Any
) -> bool:
    """Whether `FlaxModule(self)` can be called so.

    A bound module stays where it is, and a class (`Net.init(key, x)`) is no module.
    `rngs=None` is an error in `init`, and asks for Haiku's keys in a `FlaxModule`.
    """
    if not isinstance(self, nn.Module) or self.scope is not None:
        return False
    rngs = args[0] if args else kwargs.get("rngs")
    return native.__name__ == "apply" or rngs is not None


def _init(
    self: nn.Module,
    rngs: Any,
    *args: Any,
    mutable: Any = nn.DenyList("intermediates"),  # noqa: B008  # as in Flax
    **kwargs: Any,
) -> Any:
    """`self.init_with_output`, by the `init` of a transform."""
    outcomes = []

    def forward() -> None:
        net = hk_bridge.FlaxModule(self, name=NAME)
        outcomes.append(net(*args, rngs=rngs, mutable=mutable, **kwargs))

    params, state = hk.transform_with_state(forward).init(None)
    (outcome,) = outcomes
    if not _returns_variables(mutable, kwargs):
        return outcome
    output, mutated = outcome
    held = hk_bridge.to_flax(params, state, name=NAME, like=mutated)
    lost = {c for c, tree in mutated.items() if tree} - set(held) - SOWN
    assert not lost, f"init left no {sorted(lost)} in Haiku"
    return output, _as_flax_returns({**mutated, **held})


def _apply(
    self: nn.Module,
    variables: Variables,
    *args: Any,
    mutable: Any = False,
    **kwargs: Any,
) -> Any:
    """`self.apply`, by the `apply` of a transform."""

    def forward() -> Any:
        net = hk_bridge.FlaxModule(self, name=NAME)
        return net(*args, mutable=mutable, **kwargs)

    params, state = hk_bridge.to_haiku(variables, name=NAME, collections=variables)
    run = hk.transform_with_state(forward).apply
    outcome, new_state = run(params, state, None)
    if not _returns_variables(mutable, kwargs):
        assert _same_leaves(state, new_state), "nothing is mutable, but state changed"
        return outcome
    output, mutated = outcome
    # Haiku never writes params; what became of them is in `mutated` alone.
    new_params, _ = hk_bridge.to_haiku(mutated, name=NAME, collections=mutated)
    held = hk_bridge.to_flax(new_params, new_state, name=NAME, like=variables)
    return output, _as_flax_returns(_updated(mutated, held))


def _returns_variables(mutable: Any, kwargs: Mapping[str, Any]) -> bool:
    return mutable is not False or bool(kwargs.get("capture_intermediates"))


def _same_leaves(before: Any, after: Any) -> bool:
    leaves = [jax.tree.leaves(tree) for tree in (before, after)]
    same = jax.tree.structure(before) == jax.tree.structure(after)
    return same and all(map(operator.is_, *leaves))


def _updated(tree: Any, held: Any) -> Any:
    """`tree` with the leaves, and the boxes, that `held` has in the same places.

    What appeared in this call is in `tree` alone, since state keeps its structure.
    """
    if isinstance(tree, Mapping) and isinstance(held, Mapping):
        return {k: _updated(v, held[k]) if k in held else v for k, v in tree.items()}
    box = nn.meta.AxisMetadata
    if isinstance(tree, box) and not isinstance(held, box):
        return tree.replace_boxed(held)
    return held


def _as_flax_returns(variables: Variables) -> Variables:
    if flax.config.flax_return_frozendict:
        return flax.core.freeze(dict(variables))
    return dict(variables)
