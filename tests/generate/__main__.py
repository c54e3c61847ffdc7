"""`python -m tests.generate --seconds 600 --seed 0`: searches on for faults.

Prints the faults that are known, and after how many programs each was found. A failure
of no known reason is printed as a script that fails by itself, and ends the search."""

import argparse
import pathlib
import sys

from . import known
from .found import FOUND
from .reduce import smallest
from .search import Found
from .search import failure
from .search import script
from .search import search
from .spec import Program
from .spec import written


def report(found: Found) -> None:
    minutes = max(found.seconds, 1e-9) / 60
    speed = found.programs / minutes
    print(f"{found.programs} programs, {speed:.0f} a minute")
    for fault in known.FAULTS:
        after, _ = found.first.get(fault.name, (None, None))
        told = "not found" if after is None else f"after {after}"
        count = found.count.get(fault.name, 0)
        print(f"{told:>12} {count:5} times  {fault.name}: {fault.reason}")


def pin(found: Found, file: pathlib.Path) -> None:
    """Writes the smallest program of each known fault; the others stay as they are."""
    programs = dict(FOUND)
    for fault in known.FAULTS:
        if fault.name in found.first:
            programs[fault.name] = smallest_of(fault.name, found.first[fault.name][1])
    names = [fault.name for fault in known.FAULTS if fault.name in programs]
    entries = "".join(f"    {name!r}: {written(programs[name])},\n" for name in names)
    head, _, rest = file.read_text().partition("FOUND")
    _, mark, mended = rest.partition("\n# Found once, and mended")
    found = f"FOUND: dict[str, Program] = {{\n{entries}}}\n"
    file.write_text(f"{head}{found}{mark}{mended}")


def smallest_of(name: str, program: Program) -> Program:
    def fails(candidate: Program) -> bool:
        error = failure(candidate)
        return error is not None and known.explain(candidate, error) == name

    return smallest(program, fails)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.generate", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--scripts", type=pathlib.Path, help="where to write a script for each fault"
    )
    parser.add_argument(
        "--pin", type=pathlib.Path, help="the file `found.py`, to be written anew"
    )
    args = parser.parse_args()
    found = search(args.seed, seconds=args.seconds)
    report(found)
    if args.pin is not None:
        pin(found, args.pin)
    if args.scripts is not None:
        args.scripts.mkdir(parents=True, exist_ok=True)
        for name, (_, program) in found.first.items():
            file = args.scripts / f"{name.replace(' ', '_')}.py"
            file.write_text(script(program))
    if found.unexplained is None:
        return 0
    program, error = found.unexplained
    print(f"seed {args.seed}: {type(error).__name__}: {error}\n\n{program}\n")
    print(script(program))
    return 1


if __name__ == "__main__":
    sys.exit(main())
