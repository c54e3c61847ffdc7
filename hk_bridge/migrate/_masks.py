"""`compare_masks`: which leaves a predicate takes otherwise after a swap of layers."""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

from hk_bridge import _tables
from hk_bridge.migrate._carry import plan
from hk_bridge.migrate._recorded import Address
from hk_bridge.migrate._recorded import record

Predicate = Callable[[str, str, Any], Any]


@dataclasses.dataclass(frozen=True)
class Treated:
    """Leaves that belong together and are treated differently.

    Attributes:
      old, new: what the predicate says of each leaf, by `module/name`, in the old
        network and in the new one. One side is empty if nothing there corresponds.

    >>> Treated({"linear/w": True}, {"dense/kernel": False}).old
    {'linear/w': True}
    """

    old: dict[str, Any]
    new: dict[str, Any]


class Masks(tuple[Treated, ...]):
    """The leaves that are treated differently; empty if all are treated alike.

    >>> Masks([Treated({"linear/w": True}, {"dense/kernel": False})])
    old             new
    --------------  -------------------
    linear/w: True  dense/kernel: False
    """

    def __repr__(self) -> str:
        rows = [(_shown(row.old), _shown(row.new)) for row in self]
        return _tables.table([("old", "new"), *rows])


def _shown(answers: dict[str, Any]) -> str:
    return ", ".join(f"{leaf}: {answer}" for leaf, answer in answers.items()) or "-"


def compare_masks(
    old: Any, new: Any, predicate: Predicate, *args: Any, **kwargs: Any
) -> Masks:
    """The parameters that a predicate takes otherwise after layers were swapped.

    Code that picks leaves by name (`name == "w"` for weight decay, `"batchnorm" in
    module_name`) picks others, without a word, once `hk.Linear`'s `w` and `b` are the
    `kernel` and `bias` of `hk_bridge.nn.Dense`. Layers are paired as by
    `hk_bridge.migrate.carry`.

    Masks of optax are trees: give the function of which `hk.data_structures.map` made
    one, `lambda module_name, name, value: name == "w"`; that of
    `hk.data_structures.partition` or `filter` as it is; and of LARS the one that leaves
    out biases and norms, `lambda module_name, name, value: value.ndim > 1`.

    Args:
      old, new: the transformed networks. Both are run by shapes alone.
      predicate: of `(module_name, name, value)`, where `value` has a shape and a dtype;
        what it returns is compared by `==`.
      *args: inputs of both networks, as `init` takes them.
      **kwargs: keyword inputs.

    Returns:
      What is treated differently, and the leaves of either network to which none in the
      other corresponds.

    Raises:
      TypeError: `old` or `new` is no transformed network.

    >>> import haiku as hk, hk_bridge, jax.numpy as jnp
    >>> old = hk.transform(lambda x: hk.Linear(2)(x))
    >>> new = hk.transform(lambda x: hk_bridge.nn.Dense(2)(x))
    >>> decayed = lambda module_name, name, value: name == "w"
    >>> compare_masks(old, new, decayed, jnp.ones([1, 4]))
    old             new
    --------------  -------------------
    linear/w: True  dense/kernel: False
    >>> decayed = lambda module_name, name, value: name in ("w", "kernel")
    >>> len(compare_masks(old, new, decayed, jnp.ones([1, 4])))
    0
    """
    networks = record(old, args, kwargs), record(new, args, kwargs)
    steps = plan(*networks).steps

    def answers(side: int, addresses: Sequence[Address]) -> dict[str, Any]:
        specs = networks[side].specs
        return {
            f"{a.module}/{a.name}": predicate(a.module, a.name, specs[a])
            for a in addresses
            if not a.is_state
        }

    rows = [Treated(answers(0, step.old), answers(1, step.new)) for step in steps]
    used = [{a for step in steps for a in getattr(step, s)} for s in ("old", "new")]
    for side, network in enumerate(networks):
        for address in network.specs:
            if address not in used[side] and not address.is_state:
                alone = answers(side, [address])
                rows.append(Treated(alone, {}) if not side else Treated({}, alone))
    return Masks(row for row in rows if not _agree(row))


def _agree(row: Treated) -> bool:
    """Whether all leaves of both sides have one answer."""
    both = [*row.old.values(), *row.new.values()]
    if not both:
        return True  # of state
    return bool(row.old) and bool(row.new) and all(x == both[0] for x in both)
