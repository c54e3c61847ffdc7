"""Strict JAX for every test: what passes here passes under any flag a user may set."""

import itertools

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs():
    """Drops compiled programs now and then.

    Each takes memory maps, of which Linux lets a process have 65,530: past that, XLA
    crashes while it compiles the next one.
    """
    yield
    if next(_tests) % 150 == 0:
        jax.clear_caches()


@pytest.fixture(scope="module")
def cheap_compilation():
    """XLA compiles badly and fast: both sides of a law alike."""
    for fast in (True, False):
        jax.config.update("jax_disable_most_optimizations", fast)
        jax.clear_caches()  # of programs compiled with the other setting
        if fast:
            yield
