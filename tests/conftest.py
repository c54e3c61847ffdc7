"""Strict JAX for every test: what passes here passes under any flag a user may set."""

import jax
from jax.experimental.compilation_cache import compilation_cache
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module")
def cheap_compilation(tmp_path_factory):
    """XLA compiles each program once and badly: both sides of a law alike."""
    options = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in options}
    for settings in (options, before):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        jax.clear_caches()  # of programs compiled with the other settings
        if settings is options:
            yield
