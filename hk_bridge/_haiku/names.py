"""The modules of a transform that are below one, by their names.

Private in Haiku (since dm-haiku 0.0.16): `haiku._src.base.current_frame().frame_id`.
"""

import bisect
import itertools
import threading
from typing import Any

from haiku._src import base

from hk_bridge import _worth


class _Sorted(threading.local):
    """The sorted module names of the last frame, by kind, so that one sort does."""

    def __init__(self) -> None:
        self.names: dict[str, tuple[int, list[str]]] = {}


_sorted = _Sorted()


def below(prefix: str, bundles: dict[str, Any], kind: str) -> list[str]:
    """The keys of `bundles` that are `prefix` or below it, without a look at each."""
    frame_id = base.current_frame().frame_id
    known, names = _sorted.names.get(kind, (None, []))
    new = len(bundles) - len(names)
    if known != frame_id or new < 0:
        names = sorted(bundles)
        _sorted.names[kind] = (frame_id, names)
    elif new:  # init adds to them
        for name in itertools.islice(reversed(bundles), new):
            bisect.insort(names, name)
    first = bisect.bisect_left(names, prefix + "/")
    last = bisect.bisect_left(names, prefix + "0", first)  # "0" follows "/"
    own = [n for n in names[first:last] if n in bundles and not n.endswith("/~")]
    return [prefix, *own] if prefix in bundles else own


def is_of_many(name: str) -> bool:
    """Whether several modules of the transform are called `name` but for a number."""
    depth = name.count("/") + 1
    parts = (bundle.split("/") for bundle in base.current_frame().params)
    return _worth.is_of_many(name, {"/".join(part[:depth]) for part in parts})
