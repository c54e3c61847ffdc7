"""What tests of other packages need: JAX as those expect it, and the table."""

from collections import defaultdict
import os
from typing import Any

import jax
from packages_refused import REFUSED
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no weights are fetched
os.environ.setdefault("NETKET_ENABLE_X64", "0")
SIDES = ("native", "bridged")
# JAX's own defaults, where the other tests are strict or a package changes them.
THEIR_JAX = {
    "jax_default_matmul_precision": None,
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}


def pytest_addoption(parser: Any) -> None:
    parser.addoption(
        "--all-packages",
        action="store_true",
        help="a network whose package is not installed is an error, and not a skip",
    )


@pytest.fixture(autouse=True)
def their_jax() -> Any:
    before = {name: getattr(jax.config, name) for name in THEIR_JAX}
    for name, value in THEIR_JAX.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Writes the table: networks that pass, by package, and what does not count."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for outcome in ("passed", "failed", "xfailed", "xpassed"):
        for report in terminalreporter.stats.get(outcome, []):
            row = dict(report.user_properties)
            if report.when == "call" and "package" in row:
                rows[row["package"], row["version"]].append(row)
    if not rows:
        return
    write = terminalreporter.write_line
    write("\n| package | version | networks | pass natively | pass bridged |")
    write("|---|---|---|---|---|")
    for package, networks in sorted(rows.items()):
        counts = [sum(side in row for row in networks) for side in SIDES]
        write("| " + " | ".join(map(str, (*package, len(networks), *counts))) + " |")
    write("\nDo not count:")
    for refused in REFUSED:
        write(f"- {refused}: {refused.reason}")
