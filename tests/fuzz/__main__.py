"""`python -m tests.fuzz --seconds 600 --seed 1`: searches on for damage that is unseen.

Prints how many damaged files were refused, read exactly, or read as something else; the
last is a fault where the format has a checksum. A fault ends it with exit code 1."""

import argparse

from .search import search


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first file")
    parser.add_argument("--only", default="", help="part of the name of a format")
    args = parser.parse_args()
    report = search(args.seed, args.seconds, start=args.start, only=args.only)
    print(f"{report.files} files in {report.seconds:.0f} s")
    for name, counter in sorted(report.counts.items()):
        told = ", ".join(f"{count} {outcome}" for outcome, count in counter.items())
        print(f"{name:>30}: {told}")
    for fault in report.faults:
        print(fault)
    return 1 if report.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
