"""The private symbols of Flax and JAX, and what is lost without them.

What each is for is said where it is used; `tests/test_doors.py` has a canary of each.
"""

from typing import Any

from hk_bridge import _private

_private.require(
    "flax.core.lift:_partial_pack",
    "flax.core.scope:CollectionFilter",
    "flax.core.scope:LazyRng",
    "flax.core.scope:Scope._check_valid",
    "flax.core.scope:Scope._collection",
    "flax.core.scope:Scope._mutable_collection",
    "flax.core.scope:Scope._validate_trace_level",
    "flax.core.scope:Variable",
    "flax.core.scope:child_rng_token",
    "flax.core.scope:filter_to_set",
    "flax.core.scope:in_filter",
    "flax.core.scope:union_filters",
    "flax.core.tracers:current_trace",
)

module_checks = _private.optional(
    "flax.linen:Module._module_checks", "to check each module that is called"
)
module_state = _private.optional(
    "flax.linen.module:_ModuleInternalState", "to bind each module that is called"
)
DescriptorWrapper = _private.optional(
    "flax.linen.module:DescriptorWrapper", "apply, where initialisers are methods"
)
_interceptor_stack = _private.optional(
    "flax.linen.module:_global_interceptor_stack",
    "lifted transforms, and what share_traces shares",
)
_Staged = _private.optional(
    "jax.interpreters.partial_eval:DynamicJaxprTracer",
    "apply, where initialisers close over arrays, and what share_traces shares",
)


def is_staged(value: Any) -> bool:
    """Whether `value` stands for an array of a program that is being traced.

    One that gradients are taken by has such a one as its primal value."""
    while hasattr(value, "primal"):
        value = value.primal
    return _Staged is not None and isinstance(value, _Staged)


def interceptors() -> list[Any] | None:
    """Those in force in this thread, the outermost first; None if nothing tells."""
    return getattr(_interceptor_stack, "_storage", None)
