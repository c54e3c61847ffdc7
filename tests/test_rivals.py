"""That `python -m tests.rivals` judges both bridges fairly: each gets its chance."""

import haiku as hk
import laws
import pytest
from rivals import __main__ as rivals
from rivals import lift
from rivals import verdicts
from rivals.verdicts import CASES
from rivals.verdicts import Verdict

import hk_bridge


def error(law, case, bridge="lift"):
    return verdicts.verdict(law, CASES[case], bridge).error


@pytest.mark.parametrize(
    ("law", "case"),
    [
        (laws.same_program, "leaves"),  # which lift keeps in `net/~`
        (laws.same_program, "streams"),
        (laws.same_program, "sow"),  # with what is sown, as module.init returns it
        (laws.same_program, "method_by_name"),
        (laws.two_level, "weight_norm"),  # whose leaves have slashes in their names
        (laws.round_trip, "boxes"),  # which lift leaves shut
        (laws.two_level, "batch_norm"),
        (laws.calls_agree_in_init, "no_params"),
        (laws.remat_does_not_matter, "batch_norm"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_lift_passes_what_it_can(law, case):
    assert error(law, case) is None


@pytest.mark.parametrize(
    ("law", "case", "words"),
    [
        (laws.one_pass_init, "leaves", "AssertionError: assert runs == 1"),
        (laws.hooks_see_every_leaf, "leaves", "assert sorted(created)"),
        (laws.calls_agree_in_init, "leaves", "AssertionError"),
        (laws.placement_does_not_matter, "batch_norm", "AssertionError"),
        (laws.same_program, "odd_names", "ScopeParamNotFoundError"),
    ],
    ids=lambda x: getattr(x, "__name__", x),
)
def test_lift_fails_what_it_cannot(law, case, words):
    assert words in error(law, case)
    assert error(law, case, "hk_bridge") is None


def test_hk_bridge_gets_what_the_tests_say():
    found = verdicts.judge("leaves", list(verdicts.LAWS), values=False)
    ours = [v for v in found if v.bridge == "hk_bridge"]
    asked = [p for p in laws.parameters([CASES["leaves"]]) if not p.marks]
    assert [v.law for v in ours] == [p.values[0].__name__ for p in asked]
    assert [v.law for v in found if v.bridge == "lift"] == [v.law for v in ours]
    assert all(v.error is None for v in ours)


def test_a_broken_law_is_reported_for_both():
    def broken(case):
        assert case.name == "another"

    for bridge in verdicts.BRIDGES:
        assert "'leaves' == 'another'" in error(broken, "leaves", bridge)


def test_what_is_put_in_place_for_lift_is_taken_away():
    before = hk.transform_with_state
    kept = {}

    def looks(case):
        kept[case.bridge] = hk.transform_with_state is before
        raise ValueError

    for bridge in verdicts.BRIDGES:
        assert error(looks, "leaves", bridge) == "ValueError: raise ValueError"
    assert kept == {hk_bridge.FlaxModule: True, lift.lifted: False}
    assert hk.transform_with_state is before


def test_the_table_counts_cases():
    found = [
        Verdict("two_level", case, bridge, failed)
        for case in ("a", "b")
        for bridge, failed in (("hk_bridge", None), ("lift", f"KeyError: '{case}' {1}"))
    ]
    assert rivals.table(found).splitlines()[1].split() == ["two_level", "2", "2", "0"]
    assert rivals.reasons(found).split() == ["two_level", "2", "KeyError:", "...", "N"]


def test_reasons_are_told_without_what_differs_from_case_to_case():
    one = "E: mul(f32[], f32[4]) -> f32[4] at /a/b.py:1:2 (A.b) is in Flax alone"
    two = "E: scan(f32[4,3]) -> (f32[4,3], i32[2]) at /c.py:3:4 (C) is in Flax alone"
    assert rivals.kind(one) == rivals.kind(two) == "E: an equation is in Flax alone"
