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
_trace_context = _private.optional(
    "jax._src.core:trace_ctx", "what share_traces shares, which is then nothing"
)


def is_staged(value: Any) -> bool:
    """Whether `value` stands for an array of a program that is being traced.

    One that gradients are taken by has such a one as its primal value."""
    return _Staged is not None and isinstance(_primal(value), _Staged)


def are_staged_here(values: list[Any]) -> bool:
    """Whether `values` are arrays of the program that is being traced, not of another
    around it: a loop or a branch takes those in the order in which it uses them."""
    if _trace_context is None or _Staged is None:
        return False
    trace = _trace_context.trace
    while hasattr(trace, "parent_trace") and type(trace).__name__ in _OF_GRADIENTS:
        trace = trace.parent_trace
    primals = map(_primal, values)
    return all(isinstance(x, _Staged) and x._trace is trace for x in primals)


_OF_GRADIENTS = ("JVPTrace", "LinearizeTrace")


def _primal(value: Any) -> Any:
    # JAX takes long to say that a tracer has no such attribute.
    while type(value) is not _Staged and hasattr(value, "primal"):
        value = value.primal
    return value


def interceptors() -> list[Any] | None:
    """Those in force in this thread, the outermost first; None if nothing tells."""
    return getattr(_interceptor_stack, "_storage", None)
