"""What is to run, what may change, and what came of it."""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

from flax import config
from flax import core
from flax.core import scope as core_scope
import flax.linen as nn

from hk_bridge._flax.host import Record

Filter = core_scope.CollectionFilter

NOT_AT_INIT = nn.DenyList("intermediates")  # Flax's default for init


def mutable_at_init(mutable: Filter | None) -> Filter:
    """What may change at init: what Flax lets, and what was asked for."""
    return core_scope.union_filters(NOT_AT_INIT, mutable) if mutable else NOT_AT_INIT


def with_intermediates(mutable: Filter) -> Filter:
    """`mutable` and what `capture_intermediates` fills."""
    return core_scope.union_filters(mutable, "intermediates")


def in_filter(mutable: Filter, collection: str) -> bool:
    """Whether `mutable` lets `collection` change."""
    return core_scope.in_filter(mutable, collection)


class Plan(NamedTuple):
    """What is to run. Of a linen module it holds no variables.

    Attributes:
      module: the linen module, unbound, or the NNX module.
      function: of the bound module.
      mutable: the collections that may change.
      capture: as `capture_intermediates` of `nn.Module.apply`.
      keep_rngs: whether the streams of an NNX module keep keys and counts of their own.
      memory: what is remembered of the module from call to call of one net.
    """

    module: Any
    function: Callable[..., Any]
    mutable: Filter
    capture: bool | Callable[[Any, str], bool] = False
    keep_rngs: bool = False
    memory: dict[str, Any] | None = None


class Sharing(NamedTuple):
    """Who shares the calls of the submodules of a module.

    Attributes:
      share: runs a call.
      refuse: notes why nothing in a module is shared: its name, its class, the reason.
      name: of the module that they are in, for the report.
      alone: has a function fail that asks for what is not given to it.
    """

    share: Callable[[Any], Any]
    refuse: Callable[[str, str, str], None]
    name: str
    alone: Callable[[Any], Any]


class Outcome(NamedTuple):
    """What a run brought: the output, all variables after it, and what happened."""

    output: Any
    variables: dict[str, Any]
    record: Record

    def mutated(self, mutable: Filter) -> Any:
        """The collections in `mutable`, as `module.apply` returns them."""
        found = {c: v for c, v in self.variables.items() if in_filter(mutable, c)}
        return core.freeze(found) if config.flax_return_frozendict else found
