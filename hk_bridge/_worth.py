"""When one trace for several calls is likely to be worth it. It decides cost alone."""

from collections.abc import Iterable
import re

MANY = 3  # that are called alike, from which on others like the first will come
# How many calls run as ever after one that called no other module: to trace such a one
# takes longer than to run it, and only a long row of them makes up for that.
PATIENCE = 6
_NUMBER = re.compile("_?[0-9]+")


def is_of_many(name: str, names: Iterable[str]) -> bool:
    """Whether several of `names` are `name` but for a number.

    >>> is_of_many("block", ["block", "block_1", "block_2"]), is_of_many("a", ["a"])
    (True, False)
    """
    bare = _NUMBER.sub("", name)
    return sum(_NUMBER.sub("", other) == bare for other in names) >= MANY
