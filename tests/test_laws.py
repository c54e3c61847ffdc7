"""The catalogue times the laws."""

from catalogue import CASES
from catalogue import Case
from laws import LAWS
import pytest

pytestmark = pytest.mark.usefixtures("cheap_compilation")


def parameters() -> list[object]:
    """Every case with every law but those that it names, with a reason, in `skip`."""
    return [
        pytest.param(law, case, id=f"{law.__name__}-{case}")
        for case in CASES
        for law in LAWS
        if law.__name__ not in case.skip
    ]


@pytest.mark.parametrize(("law", "case"), parameters())
def test_law(law, case: Case):
    law(case)


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_only_laws_are_skipped():
    laws = {law.__name__ for law in LAWS}
    assert all(set(case.skip) <= laws for case in CASES)
