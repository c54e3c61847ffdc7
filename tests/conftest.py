"""Strict JAX for every test: what passes here passes under any flag a user may set."""

import itertools
import pathlib

import jax
import pytest

from hk_bridge._core import traces

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# XLA compiles badly and fast, both sides of a law alike, and what it made is kept.
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def pytest_addoption(parser):
    parser.addoption(
        "--whole", action="store_true", help="run what is run each week alone, too"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "weekly: is run by --whole alone")
    if hasattr(config, "cache"):
        folder = config.cache.mkdir("programs")
        jax.config.update("jax_compilation_cache_dir", str(folder))


def pytest_collection_modifyitems(config, items):
    kept, left_out = [], []
    for item in items:
        asked = config.getoption("--whole") or not item.get_closest_marker("weekly")
        (kept if asked else left_out).append(item)
    config.hook.pytest_deselected(items=left_out)
    items[:] = kept


@pytest.fixture
def eager():
    """`share_traces` asks each call for its key, worth a trace or not."""
    with traces.eagerly():
        yield


MOST_MAPS = 20_000
_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs():
    """Drops compiled programs now and then.

    Each takes memory maps, of which Linux lets a process have 65,530: past that, XLA
    crashes while it compiles the next one.
    """
    yield
    if next(_tests) % 50 == 0 and maps() > MOST_MAPS:
        jax.clear_caches()


def maps():
    """How many memory maps this process has; 0 where nothing tells."""
    file = pathlib.Path("/proc/self/maps")
    return file.read_bytes().count(b"\n") if file.exists() else 0
