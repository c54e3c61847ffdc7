"""The pytest plugin in each process that runs a file of Flax's tests.

It writes what became of every test to `FLAX_SUITE_REPORT`, as lines of JSON. With
`FLAX_SUITE_ROUTE=haiku`, the calls of the tests go through Haiku.
"""

from collections.abc import Iterator
import contextlib
import json
import os
from typing import Any

import pytest

from . import reroute

_calls = reroute.Calls()
_patch = contextlib.ExitStack()


def pytest_configure() -> None:
    global _calls
    if os.environ["FLAX_SUITE_ROUTE"] == "haiku":
        _calls = _patch.enter_context(reroute.rerouted())


def pytest_unconfigure() -> None:
    _patch.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[Any]:
    _calls.rerouted = _calls.native = 0
    return (yield)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when != "call" and report.passed:
        return
    row = {
        "test": report.nodeid.rpartition("tests/")[2],
        "outcome": report.outcome,
        "rerouted": _calls.rerouted,
        "native": _calls.native,
        "error": _last_line(report),
    }
    with open(os.environ["FLAX_SUITE_REPORT"], "a") as file:
        print(json.dumps(row), file=file)


def _last_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message.splitlines()[0] if crash and crash.message else ""
