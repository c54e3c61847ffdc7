"""The private symbols of Haiku, and what is lost without them.

What each is for is said where it is used; `tests/test_doors.py` has a canary of each.
"""

from typing import Any

from hk_bridge import _private

_private.require(
    "haiku._src.base:ModuleState",
    "haiku._src.base:StatePair",
    "haiku._src.base:context_stack",
    "haiku._src.base:current_frame",
    "haiku._src.base:frame_stack",
    "haiku._src.base:get_lift_prefix",
    "haiku._src.base:param_getter_stack",
    "haiku._src.base:state_creator_stack",
    "haiku._src.base:state_getter_stack",
    "haiku._src.base:state_setter_stack",
    "haiku._src.typing:LiftingModuleType",
)

camel_to_snake = _private.optional(
    "haiku._src.utils:camel_to_snake", "to name modules after their classes"
)
param_creator_stack = _private.optional(
    "haiku._src.base:param_creator_stack", "init, as if a creator were in force"
)
interceptor_stack = _private.optional(
    "haiku._src.module:interceptor_stack", "every call, as if it were intercepted"
)
policies = _private.optional(
    "haiku._src.mixed_precision:_mixed_precision_interceptor",
    "every call once a policy was set, as if it were intercepted",
)
get_config = _private.optional(
    "haiku._src.config:get_config", "to build modules, which all have a text"
)
next_rng_key_internal = _private.optional(
    "haiku._src.base:next_rng_key_internal", "to share modules while keys are counted"
)
NonEmptyStateError = _private.optional(
    "haiku._src.base:NonEmptyStateError", "to be told that hk.transform keeps no state"
)


def policies_by_class() -> Any:
    """The policies set in this thread, by what Haiku keeps for a class.

    None if nothing tells. A new object takes its place where Haiku's tests reset it."""
    return _private.find("haiku._src.mixed_precision:_thread_local_state._cls_policy")


# No release has to have it.
assert_jax_usage = _private.find("haiku._src.base:assert_jax_usage")
