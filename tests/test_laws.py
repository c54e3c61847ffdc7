"""The catalogues times the laws."""

import catalogue
from catalogue import Case
import catalogue_linen
import catalogue_nnx
import catalogue_nnx_lifted
import catalogue_nnx_models
import laws
import laws_nnx
import pytest

LINEN = [*catalogue.CASES, *catalogue_linen.CASES]
NNX = [
    *catalogue_nnx.CASES,
    *catalogue_nnx_lifted.CASES,
    *catalogue_nnx_models.CASES,
]
CASES = [*LINEN, *NNX]
PARAMETERS = [*laws.parameters(LINEN), *laws.parameters(NNX, laws_nnx.LAWS)]


@pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated")  # each call does
@pytest.mark.parametrize(("law", "case"), PARAMETERS)
def test_law(law, case: Case):
    law(case)


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_only_laws_are_skipped():
    names = {law.__name__ for law in laws_nnx.LAWS}
    assert all(set(case.skip) <= names for case in CASES)
