"""Runs workers over damaged checkpoints, and counts what came of them."""

import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent.parent
GOOD = ("refused", "exact", "changed")


class Report(NamedTuple):
    """What came of the files.

    Attributes:
      counts: how many files of each kind of sample had each outcome.
      faults: the lines of those that are not as they should be.
      seconds: how long it took.
    """

    counts: dict[str, collections.Counter[str]]
    faults: list[dict[str, Any]]
    seconds: float

    @property
    def files(self) -> int:
        return sum(sum(counter.values()) for counter in self.counts.values())


def search(
    seed: int,
    seconds: float = 1e9,
    count: int = 10**12,
    start: int = 0,
    only: str = "",
) -> Report:
    """Damages files until the time is over, or there were `count`."""
    begun = time.monotonic()
    counts: dict[str, collections.Counter[str]] = {}
    faults = []
    while start < count and time.monotonic() - begun < seconds:
        left = seconds - (time.monotonic() - begun)
        command = [sys.executable, "-m", "tests.fuzz.worker"]
        command += map(str, (seed, start, left, count, only))
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        with (
            tempfile.TemporaryFile("w+") as said,  # a pipe that nobody reads gets full
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            ) as process,
        ):
            assert process.stdout is not None
            for text in process.stdout:
                line = json.loads(text)
                start = line["number"] + 1
                counter = counts.setdefault(line["sample"], collections.Counter())
                counter[line["outcome"]] += 1
                if line["outcome"] not in GOOD:
                    faults.append(line)
            process.wait()
            said.seek(0)
            last = said.read()[-600:]
        if process.returncode == 0:
            break
        told = f"exit {process.returncode}: {last}"
        faults.append({"number": start, "outcome": "died", "told": told})
        counts.setdefault("any", collections.Counter())["died"] += 1
        start += 1
    return Report(counts, faults, time.monotonic() - begun)
