"""What `hk.ExponentialMovingAverage` keeps of a statistic that linen keeps alone.

With decay d, Haiku keeps `hidden' = d hidden + (1 - d) value` and evaluates with
`average' = hidden' / (1 - d ** counter')` (arxiv.org/abs/1412.6980, section 3). Linen
keeps and evaluates with the first alone."""

from collections.abc import Sequence

COUNTER, HIDDEN, AVERAGE = LEAVES = ("counter", "hidden", "average")
# So late that 1 - d ** counter is 1 for every d below 1 of float32, and so early that
# half of int32 is left to count with.
LATE = 2**30


def averages(names: Sequence[str]) -> list[tuple[str, ...]]:
    """The three leaves of each average, in the order of `LEAVES`, among these names.

    >>> averages(["a/average", "a/counter", "a/hidden", "b/counter"])
    [('a/counter', 'a/hidden', 'a/average')]
    """
    modules = dict.fromkeys(name.rpartition("/")[0] for name in names)
    trios = [tuple(f"{module}/{leaf}" for leaf in LEAVES) for module in modules]
    return [trio for trio in trios if set(trio) <= set(names)]
