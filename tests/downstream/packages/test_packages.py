"""Networks of published packages: natively, and then with the bridge.

A Flax network is bridged as it is and held to `hk_bridge.testing.check`. In a Haiku
network layers of Flax run in place of the native ones, with the native weights. A
network that does not run natively fails, too, until it is taken from the catalogue:
`packages_refused.py` says what is not in it, and why.

`.ci/run packages` installs them, and `--all-packages` makes one that is missing an
error. Without it the network is skipped.
"""

from collections.abc import Callable
from typing import Any

from packages_case import Case
from packages_flax import CASES as FLAX
from packages_haiku import CASES as HAIKU
import packages_laws as laws
from packages_nnx import CASES as NNX
from packages_refused import REFUSED
from packages_refused import Refused
from packages_transformers import CASES as TRANSFORMERS
import pytest

pytestmark = pytest.mark.filterwarnings("default")  # theirs are not for us to mend
Pass = Callable[[str], None]


@pytest.fixture
def passes(request: Any, case: Case, record_property: Any) -> Pass:
    """Tells the table that the network passes on a side, and what fault there is."""
    if case.version is None:
        missing = f"{case.package} is not installed"
        if request.config.getoption("--all-packages"):
            pytest.fail(missing)
        pytest.skip(f"{missing}: --all-packages makes that an error")
    record_property("package", case.package)
    record_property("version", case.version)

    def tell(side: str) -> None:
        record_property(side, True)
        if side == "native" and case.fault:
            request.applymarker(pytest.mark.xfail(reason=case.fault, strict=True))

    return tell


@pytest.mark.parametrize("case", [*FLAX, *TRANSFORMERS], ids=str)
def test_flax(case: Case, passes: Pass) -> None:
    net = case.make()
    laws.linen_runs(net)
    passes("native")
    laws.linen_is_the_same(net)
    passes("bridged")


@pytest.mark.parametrize("case", NNX, ids=str)
def test_nnx(case: Case, passes: Pass) -> None:
    net = case.make()
    laws.nnx_runs(net)
    passes("native")
    laws.nnx_is_the_same(net)
    passes("bridged")


@pytest.mark.parametrize("case", HAIKU, ids=str)
def test_haiku(case: Case, passes: Pass) -> None:
    net = case.make()
    theirs = laws.haiku_runs(net)
    passes("native")
    laws.haiku_is_the_same(net, theirs)
    passes("bridged")


@pytest.mark.parametrize("refused", [x for x in REFUSED if x.holds], ids=str)
def test_what_does_not_count_still_does_not(refused: Refused) -> None:
    if refused.installed is None:
        pytest.skip(f"{refused.package} is not installed")
    assert refused.holds(), f"{refused.reason}: no more. Make it a case."
