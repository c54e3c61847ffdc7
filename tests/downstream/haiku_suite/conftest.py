"""Haiku's tests expect JAX as it is by default."""

import jax
import pytest

FLAGS = {
    "jax_check_tracer_leaks": False,
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}


@pytest.fixture(autouse=True)
def defaults():
    """JAX's own defaults, whatever the test does to them."""
    before = {flag: getattr(jax.config, flag) for flag in FLAGS}
    for flag, value in FLAGS.items():
        jax.config.update(flag, value)
    yield
    for flag, value in before.items():
        jax.config.update(flag, value)


def pytest_collection_modifyitems(items):
    for item in items:
        if "haiku_suite" in item.path.parts:  # the hook is given all tests of the run
            item.add_marker(pytest.mark.filterwarnings("ignore"))
