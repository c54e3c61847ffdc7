"""What does not pass with bridged modules, and why; and what is left for the whole.

An entry is a pattern of test names and the reason. Each test that it matches has to
fail: one that passes again fails the run.
"""

import re

# Of the tests that match, one in so many is run if the whole is not asked for.
PARTS = {
    r"check_tracer_leaks_test.*:(Fp8Einsum|custom_vjp|remat):": None,  # 80 s of tracing
    r"hk_transforms_test\.test_(hk_|optimize)": 48,
    r"numpy_inputs_test": 48,
    r"(jax_transforms|jaxpr_info)_test": 24,
    r"(float64|half|summarise|hk_transforms|to_dot)_test": 4,
    r"recurrent_test": 16,
    r"layer_stack_test": 8,
    r"(base|stateful)_test.*unsafe_use": 8,
    r"stateful_test.*(cond|switch|scan|while|fori)": 8,
    r"spectral_norm_test\.SpectralNormTest": None,  # has nothing to be bridged
}

OWN = (
    "leaves|shared|remat_scan|batch_norm|evaluated|streams|variables|scan|vmap|remat|jit"
    "|branches|custom_vjp"
)
INTEGRATION = {
    r"check_tracer_leaks_test.*:(Fp8Einsum|custom_vjp|remat):": (
        "Flax alone leaks the same tracer, into a cache of JAX"
    ),
    rf"(half_test\.|float64_test\.test_float64_).*:({OWN}):": (
        "this module leaves linen's `param_dtype` at float32; Haiku's follow the input"
    ),
    r"half_test.*:BatchNorm:": (
        "linen computes statistics in float32 at least; the test wants the input's type"
    ),
    r"float64_test\.test_float32_:streams:": (
        "this module draws noise of the default type, which is float64 here"
    ),
}

NAME = "a collection in state has a name of its own; the test wants that of the module"
OWN_ERROR = "Flax's own error comes through, which has another type and text"
OWN_MODULE = "a leaf is a module of its own here, and interceptors see it"
UNITS = {
    r"base_test.*(creator_types1|custom_getter_bf161|getter_types1|get_params_or_state)"
    r"|base_test.*(set_then_get|test_stateful)": NAME,
    r"(base|transform)_test.*context_copies_input": NAME,
    r"lift_test.*lift_with_state(_nested)?$": NAME,
    r"module_test.*test_state_dict(_captured|_captured_lambda)?$": NAME,
    r"base_test.*test_setter_array": NAME,
    r"base_test.*test_setter_tree": "a tree is several leaves here, each of them set",
    r"multi_transform_test.*test_state$": NAME,
    r"stateful_test.*test_difference_(new1|update_state)": NAME,
    r"base_test.*get_parameter_wrong_shape": OWN_ERROR,
    r"base_test.*parameter_in_immutable_ctx": OWN_ERROR,
    r"transform_test.*parameter_in_apply": OWN_ERROR,
    r"recurrent_test.*_raises": OWN_ERROR,
    r"recurrent_test.*double_bias": "linen's cell has one bias",
    r"mixed_precision_test.*policy_with_interceptor": OWN_MODULE,
    r"module_test.*(callback_runs|force_name_intercept|method_hook|used_inside)": (
        OWN_MODULE
    ),
    r"(base|transform)_test.*init_custom_creator": (
        "a creator is given the initialiser that Flax knows, not that of the test"
    ),
    r"base_test.*new_state_in_apply": (
        "a collection that first appears at apply does not get into state"
    ),
    r"base_test.*unsafe_use_of_jax_[gs]et_state": (
        "init raises Haiku's error, as it should; so the state is missing at apply, and"
        " Flax's error about that comes first"
    ),
    r"stateful_test.*test_difference_new0": (
        "Flax draws a key for each initialiser, Haiku for those that use one"
    ),
    r"transform_test.*do_not_store": (
        "a collection of which Haiku holds nothing is not mutable at apply"
    ),
    r"base_test.*getter_types0": (
        "fault: of two modules under one name the second takes the first's leaves for"
        " its own, so that a getter is asked twice"
    ),
    r"transform_test.*missing_parameter_without_apply_rng": (
        "fault: the initialiser of a missing parameter runs at apply, and its error"
        " comes instead of that about the parameter"
    ),
}


def reason(name: str) -> str | None:
    """The reason for which a test fails, if it is known to."""
    entries = (INTEGRATION | UNITS).items()
    return next((text for pattern, text in entries if re.match(pattern, name)), None)


def part(name: str) -> int | None:
    """One in how many tests like this is run in CI; None is none of them."""
    return next((n for pattern, n in PARTS.items() if re.match(pattern, name)), 1)
