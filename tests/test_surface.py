"""The laws over Flax's public surface, and that no layer or transform is left out of it."""

from catalogue_linen import CASES
from laws import LAWS
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated")


@pytest.mark.parametrize(
    ("law", "case"),
    [
        pytest.param(law, case, id=f"{law.__name__}-{case}")
        for case in CASES
        for law in LAWS
        if law.__name__ not in case.skip
    ],
)
def test_law(law, case):
    law(case)
