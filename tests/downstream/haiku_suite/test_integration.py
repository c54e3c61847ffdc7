"""Haiku's `integration/*_test.py` over bridged modules."""

import re

import jax.numpy as jnp
import pytest

from haiku_suite import descriptors
from haiku_suite import expected
from haiku_suite import loading
from haiku_suite import suite
import hk_bridge.nn

LEFT_OUT = {
    "checkpoint_test": "compares with files that the wheel lacks",
    "descriptors_test": "is about the completeness of Haiku's own list",
    "doctest_test": "runs Haiku's docstrings",
    "jax2tf_test": "needs TensorFlow",
    "shim_hk_test": "is about Haiku's imports",
}
FILES = sorted(
    path.stem
    for path in loading.FOLDER.glob("integration/*_test.py")
    if path.stem not in LEFT_OUT
)
# A layer gets the dtype as `param_dtype` where the test wants that of the input.
DTYPES = {
    "test_float64": jnp.float64,
    "test_float16": jnp.float16,
    "test_bfloat16": jnp.bfloat16,
}


def load(file, lists):
    names = {"haiku._src.integration.descriptors": lists, "tree": suite.TREE}
    names["haiku._src.integration.common"] = loading.load("integration.common", names)
    return loading.load(f"integration.{file}", names)


def by_name(module):
    return {name: cls for cls, name in loading.tests(module)}


def cases():
    """Each test over a bridged module, and the same over the native one."""
    for file in FILES:
        controls = by_name(load(file, descriptors.controls()))
        by_dtype = {None: by_name(load(file, descriptors.bridged(jnp.float32)))}
        if file in ("float64_test", "half_test"):
            by_dtype |= {
                test: by_name(load(file, descriptors.bridged(dtype)))
                for test, dtype in DTYPES.items()
            }
        for name, control in controls.items():
            test = re.match(r"(.*?)_?(Recurrent\()?:(\w+):", name)
            if test is None:  # a test without a module
                continue
            bridged = by_dtype.get(test[1], by_dtype[None])
            native = str(descriptors.PAIRS[test[3]].native)
            control_id = f"{file}.{name.replace(test[3], native)}"
            yield suite.Case(f"{file}.{name}", control, bridged[name], name, control_id)


CASES = list(cases())


@pytest.mark.parametrize("case", suite.parameters(CASES))
def test_haiku(case):
    case.check()


@pytest.mark.parametrize("pattern", expected.INTEGRATION)
def test_an_entry_of_the_list_is_about_a_test(pattern):
    assert any(re.match(pattern, case.id) for case in CASES)


def test_every_layer_is_in_the_lists():
    assert set(hk_bridge.nn.__all__) - {"Fp8DotGeneral"} <= set(descriptors.PAIRS)


def test_every_file_is_run_or_left_out():
    in_wheel = {path.stem for path in loading.FOLDER.glob("integration/*_test.py")}
    assert {*FILES, *LEFT_OUT} == in_wheel
