"""`python -m tests.rivals`: `hk_bridge` and `hk.experimental.flax.lift`, law by law.

Each law is asked of each case of both catalogues, bridged by the one and by the other,
with the same function. Printed is how many cases pass, and why `lift` fails. A case is
held to the laws that the tests hold it to.
"""

import argparse
from collections import Counter
from collections.abc import Iterable
import concurrent.futures
import multiprocessing
import os
import re
import sys

from . import verdicts
from .verdicts import CASES
from .verdicts import LAWS
from .verdicts import Verdict

RIVAL = "lift"


def judge_all(
    case_names: list[str], law_names: list[str], values: bool, jobs: int
) -> Iterable[Verdict]:
    """The verdicts on all cases, from so many processes; tells how far they are."""
    spawn = multiprocessing.get_context("spawn")  # JAX has threads: no fork
    with concurrent.futures.ProcessPoolExecutor(jobs, spawn) as pool:
        waiting = [
            pool.submit(verdicts.judge, name, law_names, values) for name in case_names
        ]
        for i, done in enumerate(concurrent.futures.as_completed(waiting), 1):
            print(f"\r{i} of {len(waiting)} cases", end="", file=sys.stderr)
            yield from done.result()
    print(file=sys.stderr)


def table(found: list[Verdict]) -> str:
    """How many cases pass each law, by bridge."""
    asked = Counter((v.law, v.bridge) for v in found)
    passed = Counter((v.law, v.bridge) for v in found if v.error is None)
    rows = [["law", "cases", *verdicts.BRIDGES]]
    for law in LAWS:
        if asked[law, RIVAL]:
            counts = [passed[law, bridge] for bridge in verdicts.BRIDGES]
            rows.append([law, str(asked[law, RIVAL]), *map(str, counts)])
    return "\n".join(
        f"{row[0]:28}" + "".join(f"{x:>11}" for x in row[1:]) for row in rows
    )


def reasons(found: list[Verdict], most: int = 3) -> str:
    """Why the rival fails each law: the commonest reasons, with their counts."""
    lines = []
    for law in LAWS:
        errors = [v.error for v in found if (v.law, v.bridge) == (law, RIVAL)]
        counts = Counter(kind(error) for error in errors if error)
        rest = sum(counts.values()) - sum(n for _, n in counts.most_common(most))
        lines += [f"{law:28}{n:4}  {text}" for text, n in counts.most_common(most)]
        lines += [f"{law:28}{rest:4}  others"] if rest else []
    return "\n".join(lines)


def kind(error: str) -> str:
    """An error without what differs from case to case: numbers, names and places."""
    error = re.sub(r"\(https?:\S+\)", "", error)
    error = re.sub(r" at \S+ \([^)]*\)", "", error)
    equation = r"\w+\([^)]*\) -> (\([^)]*\)|[\w<>]+\[[^]]*\])"
    error = re.sub(equation, "an equation", error)
    error = re.sub(r"PyTreeDef\(.*?\) in", "one in", error)
    error = re.sub(r"(, one in Flax|, PyTreeDef\(.*)$", ", another in Flax", error)
    error = re.sub(r"(\[[^]]*\])+", "[...]", error)
    error = re.sub(r"(['\"]).*?\1", "...", error)
    return re.sub(r"-?\d+(\.\d+)?(e[-+]?\d+)?", "N", error).strip()[:100]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.rivals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--law", action="append", choices=LAWS, metavar="NAME")
    parser.add_argument("--case", action="append", choices=CASES, metavar="NAME")
    parser.add_argument(
        "--values", action="store_true", help="compare values where programs are, too"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N")
    parser.add_argument(
        "-v", action="store_true", help="print each failure as it comes"
    )
    args = parser.parse_args()
    case_names, law_names = args.case or list(CASES), args.law or list(LAWS)
    found = []
    for verdict in judge_all(case_names, law_names, args.values, args.jobs):
        found.append(verdict)
        if verdict.error and (args.v or verdict.bridge != RIVAL):
            named = f"{verdict.bridge}: {verdict.law} of {verdict.case}"
            print(f"{named}: {verdict.error}", flush=True)
    print(f"\n{table(found)}")
    print(f"\nWhy {RIVAL} fails, the commonest reasons\n{reasons(found)}")


if __name__ == "__main__":
    main()
