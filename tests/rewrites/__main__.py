"""Prints what `migrate.match` finds of each pair, and of each mistake.

It fails if a pair is not found and proven, if one with a mistake is, or if fewer than
nine of ten layers are right."""

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
    if full:
        yield others.LARGE_VIT


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
    """Whether the layer that differs first is the one with the mistake."""
    places = (found.parting.haiku, found.parting.flax) if found.parting else ()
    end = re.compile(f"(.*/)?({pair.mistakes[wrong].layer})")
    return any(end.fullmatch(place.layer) for place in places if place is not None)


def is_cause(pair, wrong, found):
    """Whether the cause is that of the mistake."""
    cause = "" if found.parting is None else found.parting.cause
    return re.match(pair.mistakes[wrong].cause, cause) is not None


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m tests.rewrites")
    parser.add_argument("--full", action="store_true", help="sizes of the papers")
    parser.add_argument("--only", default="", help="a pattern of names of models")
    parser.add_argument("--wrong", default="", help="a pattern of names of mistakes")
    parser.add_argument("--clean", action="store_true", help="no mistakes")
    parser.add_argument("-v", action="store_true", help="show each answer")
    args = parser.parse_args(argv)
    failed = False
    rows = [
        ("model", "leaves", "found", "proven", "ambiguous", "seconds", "layer", "cause")
    ]
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
        right, causes = [], []
        for wrong in () if args.clean else pair.mistakes:
            if not re.search(args.wrong, wrong):
                continue
            answer = matched(pair, wrong)
            right.append(is_planted(pair, wrong, answer))
            causes.append(is_cause(pair, wrong, answer))
            failed |= answer.ok
            if args.v or not (right[-1] and causes[-1]):
                words = f"{'' if right[-1] else 'NOT '}the layer, "
                words += f"{'' if causes[-1] else 'NOT '}the cause"
                print(f"{pair.name}, {wrong}: {words}\n{answer.parting}\n")
                sys.stdout.flush()
        failed |= 10 * sum(right) < 9 * len(right)
        rows.append(
            (
                pair.name,
                str(total),
                str(total - len(found.missing)),
                "yes" if found.ok else "no",
                str(len(found.ambiguous)),
                f"{seconds:.1f}",
                f"{sum(right)} of {len(right)}",
                f"{sum(causes)} of {len(causes)}",
            )
        )
        print("  ".join(rows[-1]))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
