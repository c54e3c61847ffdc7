"""`FLAX_REPO=... python -m tests.downstream.flax_suite [FILE...]`: Flax's own tests.

`FLAX_REPO` is a checkout of Flax at the installed version. Each file of its
`tests/linen` and `tests/nnx/bridge` runs twice, in processes of its own: as it is,
and with each outermost call of a module through Haiku. What passes natively has to pass
through Haiku, but for what `differences.toml` lists, with the reason; and what is
listed has to fail.
"""

import argparse
from collections.abc import Sequence
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import tomllib
from typing import Any

import flax

from . import verdict

HERE = pathlib.Path(__file__).parent
PATTERNS = ("linen/*_test.py", "nnx/bridge/*_test.py")


def tests_of(file: pathlib.Path) -> list[verdict.Test]:
    """The tests of `file`, run natively and then through Haiku.

    Both compile the same programs, so the second run finds them in JAX's cache.
    """
    with tempfile.TemporaryDirectory() as folder:
        rows = [run(file, route, pathlib.Path(folder)) for route in ("native", "haiku")]
    return verdict.paired(*rows)


def run(file: pathlib.Path, route: str, folder: pathlib.Path) -> list[dict[str, Any]]:
    """What became of the tests of `file`, a row for each."""
    report = folder / route
    paths = (str(HERE.parents[1]), os.environ.get("PYTHONPATH", ""))
    environment = os.environ | {
        "FLAX_SUITE_REPORT": str(report),
        "FLAX_SUITE_ROUTE": route,
        # As in Flax's own `run_all_tests.sh`, but compiled badly and fast.
        "JAX_NUMPY_RANK_PROMOTION": "raise",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    options = ("-q", "--import-mode=importlib", "-p", "no:cacheprovider")
    plugin = ("-p", "downstream.flax_suite.plugin")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *plugin, str(file)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    lines = report.read_text().splitlines() if report.exists() else []
    if not lines:
        print(f"{file.name} ({route}) ran no test:\n{done.stdout[-2000:]}")
    return [json.loads(line) for line in lines]


def groups() -> list[dict[str, Any]]:
    """What does not pass: a reason, and the tests that fail for it."""
    text = (HERE / "differences.toml").read_text()
    return list(tomllib.loads(text)["difference"])


def listed() -> dict[str, str]:
    """The tests that do not pass, each with the reason."""
    return {test: group["reason"] for group in groups() for test in group["tests"]}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.downstream.flax_suite")
    parser.add_argument(
        "files", nargs="*", help="of Flax's tests, as linen/linen_test.py"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=pathlib.Path, help="where to write all outcomes")
    options = parser.parse_args(arguments)
    checkout = pathlib.Path(os.environ["FLAX_REPO"]).resolve()
    if f"'{flax.__version__}'" not in (checkout / "flax/version.py").read_text():
        parser.error(f"{checkout} is no checkout of Flax {flax.__version__}")
    expected = listed()
    folder = checkout / "tests"
    names = options.files or [p for pattern in PATTERNS for p in folder.glob(pattern)]
    # The long ones first, which keeps all jobs busy to the end.
    files = sorted((folder / n for n in names), key=lambda file: -file.stat().st_size)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        tests = [test for tests in pool.map(tests_of, files) for test in tests]
    if options.json:
        options.json.write_text(json.dumps([vars(test) for test in tests], indent=1))
    print(verdict.table(tests, expected))
    for name in verdict.idle(tests, expected):
        print(f"listed, but not counted with this Flax: {name}")
    surprises = verdict.surprises(tests, expected)
    print(*surprises, sep="\n")
    return 1 if surprises or not any(test.counted for test in tests) else 0


if __name__ == "__main__":
    sys.exit(main())
