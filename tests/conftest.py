"""Strict JAX for every test: what passes here passes under any flag a user may set."""

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def cheap_compilation():
    """XLA compiles badly and fast: both sides of a law alike."""
    # Not by JAX's compilation cache on disk: reading it has crashed (jaxlib 0.10.2).
    for fast in (True, False):
        jax.config.update("jax_disable_most_optimizations", fast)
        jax.clear_caches()  # of programs compiled with the other setting
        if fast:
            yield
