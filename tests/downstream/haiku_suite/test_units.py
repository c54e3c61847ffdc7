"""Haiku's unit tests of transforms and hooks, over bridged layers and leaves."""

import re
import types

import pytest

from haiku_suite import expected
from haiku_suite import loading
from haiku_suite import substitutes
from haiku_suite import suite

# What is replaced in each file.
FILES = {
    "base_test": substitutes.LEAVES,
    "basic_test": substitutes.LAYERS,
    "eval_shape_test": substitutes.LAYERS,
    "filtering_test": substitutes.LAYERS,
    "jaxpr_info_test": substitutes.LAYERS,
    "layer_stack_test": {**substitutes.LAYERS, **substitutes.LEAVES},
    "lift_test": substitutes.LEAVES,
    "mixed_precision_test": substitutes.LEAVES,
    "module_test": substitutes.LEAVES,
    "moving_averages_test": substitutes.LAYERS,
    "multi_transform_test": substitutes.LEAVES,
    "random_test": substitutes.LEAVES,
    "recurrent_test": substitutes.LAYERS,
    "spectral_norm_test": substitutes.LAYERS,
    "stateful_test": substitutes.LEAVES,
    "summarise_test": substitutes.LAYERS,  # a leaf would be a row of its own
    "transform_test": substitutes.LEAVES,
}
# Not run: it loads a module of Haiku again, for all who use it.
LEFT_OUT = "test_policy_for_reloaded_class"
# One test of `transform_test` uses TensorFlow, and is not counted.
OTHERS = {"tree": suite.TREE, "tensorflow": types.ModuleType("tensorflow")}


def cases():
    for name, replaced in FILES.items():
        native = loading.load(name, OTHERS)
        module = loading.load(name, {**OTHERS, **replaced})
        vars(module).update(substitutes.CLASSES.get(name, {}))
        controls = {(cls.__name__, test): cls for cls, test in loading.tests(native)}
        for cls, test in loading.tests(module):
            if test == LEFT_OUT:
                continue
            case_id = f"{name}.{cls.__name__}.{test}"
            control = controls[cls.__name__, test]
            yield suite.Case(case_id, control, cls, test, case_id)


CASES = list(cases())


@pytest.mark.parametrize("case", suite.parameters(CASES))
def test_haiku(case):
    before = substitutes.uses()
    case.check(lambda: substitutes.uses() > before)


@pytest.mark.parametrize("pattern", expected.UNITS)
def test_an_entry_of_the_list_is_about_a_test(pattern):
    assert any(re.match(pattern, case.id) for case in CASES)
