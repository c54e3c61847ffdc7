"""The catalogues times the laws."""

import catalogue
from catalogue import Case
import catalogue_linen
import laws
import pytest

CASES = [*catalogue.CASES, *catalogue_linen.CASES]


@pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated")  # each call does
@pytest.mark.parametrize(("law", "case"), laws.parameters(CASES))
def test_law(law, case: Case):
    law(case)


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_only_laws_are_skipped():
    names = {law.__name__ for law in laws.LAWS}
    assert all(set(case.skip) <= names for case in CASES)
