"""A test of Haiku with its native control, and what is known not to pass."""

from collections.abc import Iterable
import dataclasses
import os
import re
import types
import unittest
import zlib

from haiku_suite import expected
from haiku_suite import loading
import jax
import pytest

WHOLE = os.environ.get("HAIKU_SUITE") == "whole"

# Haiku's tests use dm-tree for this one function.
TREE = types.SimpleNamespace(
    map_structure_with_path=jax.tree_util.tree_map_with_path,
)


_uncounted: dict[str, str | None] = {}  # by `Case.control_id`


def uncounted(case: "Case") -> str | None:
    """Why a test of Haiku is not counted, if it is not: it fails or skips natively."""
    if case.control_id not in _uncounted:
        _uncounted[case.control_id] = _run_natively(case)
    return _uncounted[case.control_id]


def _run_natively(case: "Case") -> str | None:
    try:
        loading.run(case.control, case.name)
    except loading.Skipped as skipped:
        return f"skips itself: {skipped}"
    except AssertionError as error:
        return f"fails natively: {str(error).strip().splitlines()[-1]}"
    return None


@dataclasses.dataclass(frozen=True)
class Case:
    """A test of Haiku.

    Attributes:
      id: the file and the name of the test.
      control: the test case as Haiku wrote it, with native modules.
      bridged: the same with bridged modules.
      name: of the test method.
      control_id: the same for all cases with the same control.
    """

    id: str
    control: type[unittest.TestCase]
    bridged: type[unittest.TestCase]
    name: str
    control_id: str

    def check(self) -> None:
        """Runs the control and, if that passes, the bridged test."""
        reason = uncounted(self)
        if reason is not None:
            pytest.skip(reason)
        loading.run(self.bridged, self.name)


def parameters(cases: Iterable[Case]) -> list:
    """The cases for `pytest.mark.parametrize`, with marks for those in the list.

    Unless the whole is asked for, of what compiles much only a fixed part is taken.
    """
    found = []
    for case in cases:
        share = next((n for p, n in expected.PARTS if re.match(p, case.id)), 1)
        if not WHOLE and (share is None or zlib.crc32(case.id.encode()) % share):
            continue
        reason = expected.reason(case.id)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason)]
        found.append(pytest.param(case, id=case.id, marks=marks))
    return found
