"""The process that reads damaged checkpoints, and prints what came of each.

It has a limit on memory, and each file one on time; if it dies, who started it knows
by which file."""

import json
import pathlib
import resource
import shutil
import signal
import sys
import tempfile
import time
from typing import Any

import numpy as np

import hk_bridge
from hk_bridge import migrate

from .damage import damaged
from .samples import Sample
from .samples import samples

MEMORY = 2**30  # bytes, beyond those that the process takes at the start
SECONDS = 20.0


class TooLong(BaseException):
    """A file took too long."""


def work(seed: int, start: int, seconds: float, count: int, only: str) -> None:
    """Prints a line for each file, from number `start` on, as long as there is time.

    Of those of one kind alone, if `only` is not empty."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        whole = pathlib.Path(name) / "whole"
        whole.mkdir()
        made = samples(whole)
        expected = [sample.read(sample.path) for sample in made]
        _limit()
        for number in range(start, count):
            if time.monotonic() > end:
                break
            place = pathlib.Path(name) / "damaged"
            which = number % len(made)
            if only not in made[which].name:
                continue
            told = _one(made, which, expected[which], place, (seed, number))
            line = {"number": number, "sample": made[which].name, **told}
            print(json.dumps(line), flush=True)


def _limit() -> None:
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))

    def late(*_: Any) -> None:
        raise TooLong

    signal.signal(signal.SIGALRM, late)


def _one(
    made: list[Sample], which: int, expected: Any, place: pathlib.Path, seed: Any
) -> dict[str, str]:
    sample = made[which]
    rng = np.random.default_rng(seed)
    shutil.rmtree(place, ignore_errors=True)
    if sample.path.is_dir():
        shutil.copytree(sample.path, place)
        path = place
    else:
        place.mkdir()
        path = place / sample.path.name
    file = sample.files[rng.integers(len(sample.files))]
    other = made[rng.integers(len(made))].files[0].read_bytes()
    content = damaged(rng, file.read_bytes(), other)
    inner = file.relative_to(sample.path) if path is place else pathlib.Path(file.name)
    (place / inner).write_bytes(content)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        found = sample.read(path)
    except (migrate.CheckpointError, hk_bridge.VariablesError) as error:
        clean = "\n" not in str(error) and str(path) in str(error)
        outcome = "refused" if clean else "unclear"
        return {"outcome": outcome, "told": str(error)[:300]}
    except TooLong:
        return {"outcome": "too long"}
    except BaseException as error:
        return {"outcome": "raised", "told": f"{type(error).__name__}: {error}"[:300]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    if same(found, expected):
        return {"outcome": "exact"}
    return {"outcome": "changed unseen" if sample.checked else "changed"}


def same(one: Any, two: Any) -> bool:
    """Same structure, dtypes, shapes and bits."""
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        keys = list(one) == list(two) or set(one) == set(two)
        return keys and all(same(one[key], two[key]) for key in two)
    if isinstance(one, (list, tuple)):
        pairs = zip(one, two, strict=False)
        return len(one) == len(two) and all(same(*pair) for pair in pairs)
    if isinstance(one, np.ndarray):
        kinds = (one.dtype, one.shape) == (two.dtype, two.shape)
        return kinds and one.tobytes() == two.tobytes()
    return bool(one == two)


if __name__ == "__main__":
    seed, start, count = map(int, (sys.argv[1], sys.argv[2], sys.argv[4]))
    work(seed, start, float(sys.argv[3]), count, sys.argv[5])
