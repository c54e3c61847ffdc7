"""A test of Haiku with its native control, and what is known not to pass."""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import os
import re
import types
import unittest
import zlib

import jax
import pytest

from haiku_suite import expected
from haiku_suite import loading

WHOLE = os.environ.get("HAIKU_SUITE") == "whole"

# Haiku's tests need dm-tree for these functions, and nothing else.
TREE = types.SimpleNamespace(
    assert_same_structure=lambda a, b: jax.tree.map(lambda x, y: None, a, b),
    flatten=jax.tree.leaves,
    map_structure=jax.tree.map,
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
        errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", str(error), re.MULTILINE)
        return f"fails natively: {errors[-1]}"
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

    def check(self, used: Callable[[], bool] = lambda: True) -> None:
        """Runs the bridged test and its control, whose failure counts first.

        Args:
          used: whether the bridged test has come to a bridged module. If it has not,
            it is not counted.
        """
        error = None
        try:
            loading.run(self.bridged, self.name)
        except (AssertionError, loading.Skipped) as caught:
            error = caught
        if error is None and not used():
            pytest.skip("has no module that could be bridged")
        reason = uncounted(self)
        if reason is not None:
            pytest.skip(reason)
        if error is not None:
            raise error


def parameters(cases: Iterable[Case]) -> list:
    """The cases for `pytest.mark.parametrize`, with marks for those in the list.

    Unless the whole is asked for, of what compiles much only a fixed part is taken.
    """
    found = []
    for case in cases:
        share = expected.part(case.id)
        if not WHOLE and (share is None or zlib.crc32(case.id.encode()) % share):
            continue
        reason = expected.reason(case.id)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason)]
        found.append(pytest.param(case, id=case.id, marks=marks))
    return found
