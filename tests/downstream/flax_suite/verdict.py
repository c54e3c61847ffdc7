"""What the two runs of Flax's tests say together, and what was expected of them."""

from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
from typing import Any

Rows = Iterable[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Test:
    """One of Flax's tests, run natively and through Haiku.

    Attributes:
      name: the file, below Flax's `tests`, and the names of class and function.
      native: whether it passes natively.
      haiku: whether it passes through Haiku.
      rerouted: how many calls went through Haiku.
      kept: how many outermost calls had no counterpart in Haiku and stayed native.
      error: how it fails through Haiku, in one line.
    """

    __test__ = False  # pytest takes it for a class of tests

    name: str
    native: bool
    haiku: bool
    rerouted: int = 0
    kept: int = 0
    error: str = ""

    @property
    def file(self) -> str:
        return self.name.partition("::")[0]

    @property
    def counted(self) -> bool:
        """Whether it says anything of the bridge: only what passes natively does."""
        return self.native and (self.rerouted > 0 or not self.haiku)


def paired(native: Rows, haiku: Rows) -> list[Test]:
    """The tests of the native run, each with its outcome through Haiku."""
    passed = _passed(native)
    bridged = _passed(haiku)
    rows = {row["test"]: row for row in haiku}
    tests = []
    for name, ok in passed.items():
        row = rows.get(name, {"error": "it did not finish"})
        counts = (row.get("rerouted", 0), row.get("native", 0))
        error = row.get("error", "")
        tests.append(Test(name, ok, bridged.get(name, False), *counts, error))
    return tests


def _passed(rows: Rows) -> dict[str, bool]:
    """Whether each test passed; what fails in its teardown has two rows."""
    passed: dict[str, bool] = {}
    for row in rows:
        ok = row["outcome"] == "passed"
        passed[row["test"]] = passed.get(row["test"], True) and ok
    return passed


def surprises(tests: Iterable[Test], listed: Mapping[str, str]) -> list[str]:
    """One line for each test that does not do what the list says of it."""
    lines = []
    for test in tests:
        if test.counted and not test.haiku and test.name not in listed:
            lines.append(f"fails: {test.name}: {test.error}")
        if test.counted and test.haiku and test.name in listed:
            lines.append(f"passes, take it off the list: {test.name}")
    return lines


def idle(tests: Iterable[Test], listed: Mapping[str, str]) -> list[str]:
    """What is listed of these files, but says nothing with this release of Flax."""
    tests = list(tests)
    files = {test.file for test in tests}
    counted = {test.name for test in tests if test.counted}
    ours = (name for name in listed if name.partition("::")[0] in files)
    return [name for name in ours if name not in counted]


def table(tests: Iterable[Test], listed: Mapping[str, str]) -> str:
    """Figures for each file, and the sum."""
    tests = list(tests)
    files = sorted({test.file for test in tests})
    rows = [(file, [t for t in tests if t.file == file]) for file in files]
    lines = [
        "| file | tests | pass natively | counted | pass | listed | calls | kept |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for title, group in [*rows, ("all", tests)]:
        counted = [test for test in group if test.counted]
        figures = [
            len(group),
            sum(test.native for test in group),
            len(counted),
            sum(test.haiku for test in counted),
            sum(test.name in listed for test in counted),
            sum(test.rerouted for test in counted),
            sum(test.kept for test in counted),
        ]
        lines.append(f"| {title} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)
