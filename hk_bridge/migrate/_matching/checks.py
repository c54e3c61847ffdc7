"""Whether a step with the weights of its counterpart gives what that gives."""

from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.holdings import FOLDED
from hk_bridge.migrate._matching.holdings import Option
from hk_bridge.migrate._matching.holdings import Pair
from hk_bridge.migrate._matching.known import Flax
from hk_bridge.migrate._matching.prints import are_close
from hk_bridge.migrate._matching.prints import factor_of
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.units import HOMOGENEOUS


def is_right(flax: Flax, haiku: Side, step: Step, option: Option) -> bool:
    """Whether a result is that of its counterpart, where it has to be.

    It has to be where both do the same with all of their weights, and the same data."""
    made, prints = haiku.prints.of, flax.side.prints.of
    others = {other.site for _, other in option}
    if len(others) > 1 or not all(map(_is_whole, option)):
        return True
    (other,), site = others, option[0][0].site
    if site.role not in ("linear", "sum", "product"):
        return True
    if site.role != "linear" and (
        len(site.units) != len(other.units)
        or site.data not in made
        or not are_close(made[site.data], prints[other.data])
    ):
        return True
    here, there = made[step.outs[0]], prints[other.out]
    if site.role in HOMOGENEOUS:
        return factor_of(here, there) is not None or are_close(here, there)
    return are_close(here, there)


def _is_whole(pair: Pair) -> bool:
    """Whether two units are all of their weights, with nothing else added."""
    folded = abs(pair[0].plus - pair[1].plus) >= FOLDED
    return not folded and all(u.rows is None and u.columns is None for u in pair)
