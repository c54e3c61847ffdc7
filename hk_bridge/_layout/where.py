"""Where a leaf is: in Flax a `Where`, in Haiku an address."""

from typing import NamedTuple

from hk_bridge._layout import names

PARAMS = "params"


class Where(NamedTuple):
    """A place in Flax variables.

    Attributes:
      collection: `params`, `batch_stats` or any other.
      path: the names on the way, `("Dense_0", "kernel")`; numbers among them, in NNX.

    >>> Where("params", ("Dense_0", "bias")) == ("params", ("Dense_0", "bias"))
    True
    """

    collection: str
    path: names.Path


def address(name: str, where: Where) -> tuple[str, str]:
    """Where a leaf of the module `name` lives: Haiku's module name and leaf name.

    >>> address("net", Where("params", ("Dense_0", "bias")))
    ('net/Dense_0', 'bias')
    >>> address("net", Where("stats", ("mean",)))
    ('net/stats', 'mean')
    """
    collection, path = where
    parents = path[:-1] if collection == PARAMS else (collection, *path[:-1])
    return names.join(name, parents), names.escape(path[-1])


def spelled(where: Where) -> str:
    """A leaf in one string: `params/Dense_0/kernel`."""
    collection, path = where
    return names.join(names.escape(collection), path)
