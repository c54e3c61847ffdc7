"""A call of an NNX module as a pure function of variables and keys, without Haiku."""

from typing import Any

from hk_bridge import _layout
from hk_bridge._flax.host import MISSING
from hk_bridge._flax.host import Alone
from hk_bridge._flax.host import Recipe
from hk_bridge._flax.nnx.run import run
from hk_bridge._flax.nnx.streams import NnxStreams
from hk_bridge._flax.plan import Plan


class _Given(Alone):
    """The host of a module that has all it needs."""

    initializing = False

    def leaf(self, recipe: Recipe) -> Any:
        return MISSING


def apply(plan: Plan, variables: Any, args: Any, kwargs: Any, rngs: Any) -> Any:
    """What the function of `plan` gives for these variables and keys.

    With `mutable`, `(y, mutated)`, as `nn.Module.apply` returns it."""
    host = _Given(NnxStreams({} if rngs is None else rngs, None, False))
    copied = _layout.map_leaves(lambda where, leaf: leaf, _layout.opened(variables))
    outcome = run(plan, copied, host, args, kwargs)
    if plan.mutable is False:
        return outcome.output
    return outcome.output, outcome.mutated(plan.mutable)
