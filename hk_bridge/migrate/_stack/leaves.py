"""One leaf of each layer as one array with an axis more, and back."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge import _layout

Params = Mapping[Any, Any]  # `metadata_params`, as in `nn.scan`


class Misfit(Exception):
    """Leaves cannot be stacked, or a leaf cannot be taken apart.

    Attributes:
      layer: which of the leaves it is.
      texts: what it is, and what it has to be.
    """

    def __init__(self, layer: int, given: str, expected: str):
        super().__init__(layer, given, expected)
        self.layer, self.texts = layer, (given, expected)


def stacked(leaves: Sequence[Any], axis: int, params: Params) -> Any:
    """One leaf with a new `axis`, along which `leaves` lie.

    A leaf may be a tree of arrays; boxes are told of the axis.

    Raises:
      Misfit: they differ in structure, shape, dtype or kind, or one is no array.
    """
    flat: list[Any] = [jax.tree.flatten(leaf) for leaf in leaves]
    arrays, tree = flat[0]
    kinds = [_kind(array) for array in arrays]
    for i, (others, other_tree) in enumerate(flat):
        found = [_kind(array) for array in others]
        if None in found:
            raise Misfit(i, _text(leaves[i]), "arrays")
        if other_tree != tree or found != kinds:
            given, first = _text(leaves[i]), _text(leaves[0])
            if given == first:
                given += " in another box, abstract or weak"
            raise Misfit(i, given, f"{first}, as the first has")
    if not all(-array.ndim - 1 <= axis <= array.ndim for array in arrays):
        raise Misfit(0, _text(leaves[0]), f"room for axis {axis}")
    groups = zip(*(others for others, _ in flat), strict=True)
    made = jax.tree.unflatten(tree, [_stack(group, axis) for group in groups])
    return _boxes(made, axis, lambda box, axis: box.add_axis(axis, dict(params)))


def size(leaf: Any, axis: int) -> int | None:
    """How many leaves lie along `axis` of `leaf`; None if it has no arrays.

    Raises:
      Misfit: it has no such axis, several sizes along it, or something else in it.
    """
    sizes = set()
    for array in jax.tree.leaves(leaf):
        if _kind(array) is None:
            raise Misfit(0, _text(leaf), "arrays")
        if not -array.ndim <= axis < array.ndim:
            raise Misfit(0, _text(leaf), f"an axis {axis}")
        sizes.add(array.shape[axis])
    if len(sizes) > 1:
        raise Misfit(0, _text(leaf), f"one size along axis {axis}")
    return sizes.pop() if sizes else None


def unstacked(leaf: Any, axis: int, count: int, params: Params) -> list[Any]:
    """The `count` leaves that lie along `axis` of `leaf`."""
    leaf = _boxes(leaf, axis, lambda box, axis: box.remove_axis(axis, dict(params)))
    arrays, tree = jax.tree.flatten(leaf)
    apart = [_unstack(array, axis, count) for array in arrays]
    return [
        jax.tree.unflatten(tree, [parts[i] for parts in apart]) for i in range(count)
    ]


def _kind(array: Any) -> tuple[str, Any, Any, bool] | None:
    """What has to be equal of arrays that are stacked; None of what is no array."""
    weak = bool(getattr(array, "weak_type", False))
    if isinstance(array, jax.ShapeDtypeStruct):
        return "abstract", array.shape, array.dtype, weak
    plain = isinstance(array, np.generic) or type(array) in (np.ndarray, np.memmap)
    if plain or isinstance(array, jax.Array):  # masks would be lost
        return "array", array.shape, array.dtype, weak
    return None


def _text(leaf: Any) -> str:
    return _abstract.describe(leaf)


def _stack(arrays: Sequence[Any], axis: int) -> Any:
    first = arrays[0]
    if isinstance(first, jax.ShapeDtypeStruct):
        axis %= first.ndim + 1
        shape = (*first.shape[:axis], len(arrays), *first.shape[axis:])
        sharding = _sharding(first, lambda spec: spec.insert(axis, None))
        return first.update(shape=shape, sharding=sharding)
    if any(isinstance(array, jax.Array) for array in arrays):
        return jnp.stack(arrays, axis)
    if len(arrays) == 1:
        return np.expand_dims(first, axis)  # a view
    return np.stack(arrays, axis, dtype=first.dtype)  # in its byte order


def _unstack(array: Any, axis: int, count: int) -> Sequence[Any]:
    axis %= array.ndim
    if isinstance(array, jax.ShapeDtypeStruct):
        shape = (*array.shape[:axis], *array.shape[axis + 1 :])
        sharding = _sharding(array, lambda spec: spec.pop(axis))
        return [array.update(shape=shape, sharding=sharding)] * count
    if isinstance(array, jax.Array):
        return jnp.unstack(array, axis=axis)  # one program for all
    before = (slice(None),) * axis
    return [array[*before, i, ...] for i in range(count)]  # views


def _sharding(array: Any, change: Callable[[list[Any]], Any]) -> Any:
    """The sharding of a shape, after a change of the axes that are split."""
    if not isinstance(array.sharding, NamedSharding):
        return array.sharding
    spec = [*array.sharding.spec, *[None] * array.ndim][: array.ndim]
    change(spec)
    return array.sharding.update(spec=PartitionSpec(*spec))


def _boxes(leaf: Any, axis: int, change: Callable[[Any, int], Any]) -> Any:
    """`leaf` with what `change` makes of its boxes and an axis from the front."""

    def changed(part: Any) -> Any:
        if not _layout.is_box(part):
            return part
        arrays = jax.tree.leaves(part)
        try:
            return change(part, axis % arrays[0].ndim if arrays and axis < 0 else axis)
        except Exception as error:
            error.add_note(_errors.note_box(type(part)))
            raise

    return jax.tree.map(changed, leaf, is_leaf=_layout.is_box)
