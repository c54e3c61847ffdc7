"""What does not pass with bridged modules, and why; and what is run in CI."""

import re

# Of the tests that match, every n-th is run if the whole is not asked for.
PARTS = {
    r"hk_transforms_test\.test_(hk_|opt|vmap)": 8,
    r"(jax_transforms|numpy_inputs|jaxpr_info)_test": 8,
}.items()

OWN = (
    "leaves|shared|remat_scan|batch_norm|evaluated|streams|variables|scan|vmap|remat|jit"
    "|branches|custom_vjp"
)
# Names of tests, and the reason for which they fail.
EXPECTED = {
    r"check_tracer_leaks_test.*:(Fp8Einsum|custom_vjp|remat):": (
        "Flax alone leaks the same tracer into a cache of JAX"
    ),
    rf"(half_test\.|float64_test\.test_float64_).*:({OWN}):": (
        "this module leaves linen's `param_dtype` at float32; Haiku's follow the input"
    ),
    r"half_test.*:BatchNorm:": (
        "linen computes batch statistics in float32 at least, to be exact; asked for"
        " here are those of the input's type"
    ),
    r"float64_test\.test_float32_:streams:": (
        "this module draws noise of the default type, which is float64 here"
    ),
}


def reason(name: str) -> str | None:
    """The reason for which a test fails, if it is known to."""
    return next((text for p, text in EXPECTED.items() if re.match(p, name)), None)
