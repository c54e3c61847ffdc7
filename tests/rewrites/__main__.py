"""Prints what `migrate.match` finds of each pair, and of each mistake.

It fails if a pair is not found and proven, or one with a mistake is."""

import argparse
import re
import sys
import time

import haiku as hk

from hk_bridge import migrate

from . import images
from .pairs import scrambled
from .pairs import shuffled

SMALL = (8, 16, 32, 64)


def pairs(full):
    """All pairs; `full` has the sizes of the papers."""
    if full:
        yield images.resnet("ResNet18", (2, 2, 2, 2), (64, 128, 256, 512), False, 64)
        yield images.resnet("ResNet50", (3, 4, 6, 3), (256, 512, 1024, 2048), True, 64)
        strides = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
        sizes = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
        yield images.mobilenet(strides, sizes, 65)
    else:
        yield images.resnet("ResNet18", (2, 2, 2, 2), SMALL, False, 40)
        yield images.resnet("ResNet50", (3, 4, 6, 3), SMALL, True, 40)
        yield images.mobilenet((1, 2, 1, 2), (8, 16, 16, 32), 33)
    from . import others

    yield from others.PAIRS


def matched(pair, wrong="", seed=0):
    """The match of a pair with scrambled names."""
    haiku = scrambled(hk.transform_with_state(pair.haiku(wrong)), seed)
    of_flax, of_haiku = pair.kwargs(wrong)
    return migrate.match(
        pair.flax(wrong),
        shuffled(pair.variables(wrong), seed),
        haiku,
        *pair.args,
        flax_kwargs=of_flax,
        haiku_kwargs=of_haiku,
        progress=False,
    )


def is_planted(pair, wrong, found):
    """Whether the first layer that differs is the planted one."""
    parting = found.parting
    places = (
        [p for p in (parting.haiku, parting.flax) if p is not None] if parting else []
    )
    return any(re.search(pair.mistakes[wrong], p.layer) for p in places)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.rewrites")
    parser.add_argument("--full", action="store_true", help="sizes of the papers")
    parser.add_argument("--only", default="", help="a pattern of names of models")
    parser.add_argument("--wrong", default="", help="a pattern of names of mistakes")
    parser.add_argument("--clean", action="store_true", help="no mistakes")
    parser.add_argument("-v", action="store_true", help="show each answer")
    args = parser.parse_args(argv)
    failed = False
    rows = [("model", "leaves", "found", "proven", "ambiguous", "seconds", "mistakes")]
    for pair in pairs(args.full):
        if not re.search(args.only, pair.name):
            continue
        start = time.perf_counter()
        found = matched(pair)
        seconds = time.perf_counter() - start
        if args.v:
            print(pair.name, found)
        failed |= not found.ok
        total = len({row.haiku for row in found.table().rows})
        right = []
        for wrong in () if args.clean else pair.mistakes:
            if not re.search(args.wrong, wrong):
                continue
            answer = matched(pair, wrong)
            planted = is_planted(pair, wrong, answer)
            right.append(planted)
            failed |= answer.ok
            if args.v or not planted:
                print(
                    f"{pair.name}, {wrong}: {'planted' if planted else 'NOT PLANTED'}"
                )
                print(answer.parting, "\n")
                sys.stdout.flush()
        rows.append(
            (
                pair.name,
                str(total),
                str(total - len(found.missing)),
                "yes" if found.ok else "no",
                str(len(found.ambiguous)),
                f"{seconds:.1f}",
                f"{sum(right)} of {len(right)}",
            )
        )
        print("  ".join(rows[-1]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
