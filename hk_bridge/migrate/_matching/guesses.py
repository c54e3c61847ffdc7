"""Leaves for which nothing speaks but their shapes: for a proof to decide on."""

from collections.abc import Set

from hk_bridge.migrate._matching.holdings import UNKNOWN
from hk_bridge.migrate._matching.solve import Solved
from hk_bridge.migrate._matching.trees import PARAMS


def fill(solved: Solved, read: Set[str]) -> None:
    """Gives leaves of Haiku that are read, but not found, those of Flax that are left.

    Each takes the first of its own shape, or of its transposed one; params go to
    params, and state to what is none."""
    held, haiku, flax = solved.search.held, solved.haiku, solved.flax.side
    held.found = held.found.copy()
    left = [
        (place, flax.terms.ids(place))
        for place in range(len(flax.names))
        if bool(held.free[slice(*flax.terms.starts[place : place + 2])].all())
    ]
    for place, name in enumerate(haiku.names):
        ids = haiku.terms.ids(place)
        if _is_param(name) and name not in read:
            continue
        if not ids.size or not bool((held.found[ids] == UNKNOWN).all()):
            continue
        for turned in (False, True):
            some = [
                (other, theirs.T if turned else theirs)
                for other, theirs in left
                if _is_param(flax.names[other]) == _is_param(name)
            ]
            fits = [pair for pair in some if pair[1].shape == ids.shape]
            if fits:
                other, theirs = fits[0]
                held.found[ids.ravel()] = theirs.ravel()
                left = [pair for pair in left if pair[0] != other]
                break


def _is_param(name: str) -> bool:
    return name.startswith(f"{PARAMS}/")
