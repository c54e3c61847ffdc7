"""What a test of another's package needs: JAX as that expects it, and the table."""

from collections import defaultdict
import os
from typing import Any

import jax
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no weights are fetched
STRICT = {"jax_numpy_dtype_promotion": "standard", "jax_numpy_rank_promotion": "allow"}


@pytest.fixture(autouse=True, scope="module")
def their_jax() -> Any:
    """JAX's own flags, not the strict ones of our tests, and cheap compilation."""
    before = {name: getattr(jax.config, name) for name in STRICT}
    for name, value in STRICT.items():
        jax.config.update(name, value)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    for name, value in before.items():
        jax.config.update(name, value)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table: package, version, networks, how many pass natively and bridged."""
    networks: dict[tuple[str, str], set[str]] = defaultdict(set)
    passed: dict[tuple[str, str, str], int] = defaultdict(int)
    for outcome in ("passed", "failed", "error", "xfailed"):
        for report in terminalreporter.stats.get(outcome, []):
            row = dict(report.user_properties)
            if "package" in row and (report.when == "call" or outcome == "error"):
                package = row["package"], row["version"]
                networks[package].add(row["network"])
                passed[*package, row["side"]] += outcome == "passed"
    if not networks:
        return
    write = terminalreporter.write_line
    write("")
    write("| package | version | networks | pass natively | pass bridged |")
    write("|---|---|---|---|---|")
    for package in sorted(networks):
        counts = [passed[*package, side] for side in ("native", "bridged")]
        cells = (*package, len(networks[package]), *counts)
        write("| " + " | ".join(map(str, cells)) + " |")
    counting = [p for p in networks if passed[*p, "bridged"] == len(networks[p])]
    write(f"{len(counting)} of {len(networks)} packages pass whole")
