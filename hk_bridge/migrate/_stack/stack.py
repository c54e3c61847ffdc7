"""`stack` and `unstack`: layers side by side, as those of one scan, and back."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _layout
from hk_bridge.migrate._stack import layers as naming
from hk_bridge.migrate._stack import leaves
from hk_bridge.migrate._stack.rows import At
from hk_bridge.migrate._stack.rows import Module
from hk_bridge.migrate._stack.rows import Rows
from hk_bridge.migrate._stack.rows import rows_of
from hk_bridge.migrate._stack.rows import tree_of


def stack(
    tree: Mapping[str, Any],
    layers: str | Sequence[str],
    *,
    into: str,
    axis: int | Mapping[str, int] = 0,
    metadata_params: Mapping[Any, Any] | None = None,
) -> dict[str, Any]:
    """The tree of a network that scans its layers, of one that has them one by one.

    Each leaf of the layers gets a new axis, along which they lie in the order of their
    numbers, as `nn.scan`, `hk.experimental.layer_stack` and `hk.scan` take them:

        block = lambda x: FlaxModule(Block(), name="block")(x)
        y = hk.experimental.layer_stack(24, name="stack")(block)(x)

    reads what `FlaxModule(net, name="net")` has for its 24 blocks as

        params = stack(params, "net/layers_{}", into="stack/block")
        state = stack(
            state, "net/batch_stats/layers_{}", into="stack/block/batch_stats")

    Without a name, layer_stack calls itself `__layer_stack_no_per_layer`. `unstack` is
    the inverse.

    NumPy arrays are copied once, and one layer alone not at all; arrays of JAX are
    stacked on their devices. `jax.ShapeDtypeStruct`s stand for arrays. Boxes get an
    axis as `nn.scan` gives them one. All other leaves are handed over untouched.

    Args:
      tree: Haiku's params or state, or Flax variables `{collection: nested dict}`; an
        `nnx.State` will do. In a transform it may hold tracers.
      layers: the name of the layers with `{}` for the number, `net/layers_{}`; or all
        of their names, in order. In Haiku's trees that is the full name of the module,
        of which Haiku's own loop makes `["block", "block_1", "block_2"]`. In Flax
        variables it is the path in each collection, `layers_{}`, spelled as in Haiku:
        the numbers in lists of NNX are `layers/%i{}`.
      into: the name of what holds them all.
      axis: where the new axis is; of Flax variables also `{collection: axis}`, as
        `variable_axes` of `nn.scan`, which leaves other collections as they are.
      metadata_params: what boxes are told of the axis, as in `nn.scan`: by default
        `{nn.PARTITION_NAME: None}`, which splits it over no devices.

    Returns:
      New plain dicts, `tree` being as it was.

    Raises:
      VariablesError: there are no such layers, a number is left out, a leaf is not the
        same in all of them (there, structure, shape, dtype), is no array or lacks the
        axis, or something is at `into`.
      ValueError, TypeError: a name has no `{}`, or two.

    >>> import numpy as np
    >>> params = {f"net/layers_{i}": {"bias": np.full(3, i)} for i in range(12)}
    >>> stacked = stack(params, "net/layers_{}", into="net/layers")
    >>> stacked["net/layers"]["bias"].shape, stacked["net/layers"]["bias"][10]
    ((12, 3), array([10, 10, 10]))
    """
    rows = rows_of(tree)
    axes = _axes(axis, rows)
    target = naming.one(into)
    all_names = naming.present(layers, rows, axes, _layout.are_haikus(tree))
    rest, apart = _taken_out(rows, all_names, axes)
    naming.check_free([target], rest, apart, _layout.are_haikus(tree))
    params = _metadata(metadata_params)
    made: Rows = {}
    for below in dict.fromkeys(at for layer in apart for at in layer):
        has = [below in layer for layer in apart]
        if not all(has):
            raise _errors.layer_lacks(
                below.inside(all_names[has.index(False)]),
                below.inside(all_names[has.index(True)]),
            )
        at = below.inside(target)
        made[at] = None
        if at.name is not None:
            group = [layer[below] for layer in apart]
            try:
                made[at] = leaves.stacked(group, axes[at.collection], params)
            except leaves.Misfit as misfit:
                layer = all_names[misfit.layer]
                raise _errors.no_stack(below.inside(layer), *misfit.texts) from None
    if not any(at.name for at in made):
        raise _errors.nothing_to_stack("/".join(all_names[0]))
    return tree_of({**rest, **made}, _layout.are_haikus(tree))


def unstack(
    tree: Mapping[str, Any],
    layers: str,
    *,
    into: str | Sequence[str],
    axis: int | Mapping[str, int] = 0,
    metadata_params: Mapping[Any, Any] | None = None,
) -> dict[str, Any]:
    """The tree of a network that has its layers one by one, of one that scans them.

    The exact inverse of `stack`: `unstack(stack(tree, a, into=b), b, into=a)` has the
    leaves of `tree`, and the other way round. Leaves of NumPy are views of the stacked
    ones, which stay alive with them.

    Args:
      tree: as for `stack`.
      layers: the name of what holds all layers.
      into: the name of each layer, with `{}` for its number; or all names, in order.
      axis: along which axis the layers lie, as for `stack`.
      metadata_params: what boxes are told of the axis that goes, as for `stack`. It is
        the name that they have for it.

    Returns:
      New plain dicts, `tree` being as it was.

    Raises:
      VariablesError: nothing is at `layers`, a leaf there is no array, lacks the axis
        or has another number of layers, or something is at `into`.
      ValueError, TypeError: a name has no `{}`, or two.

    >>> import numpy as np
    >>> variables = {"params": {"layers": {"bias": np.arange(4).reshape(2, 2)}}}
    >>> unstack(variables, "layers", into="block_{}")
    {'params': {'block_0': {'bias': array([0, 1])}, 'block_1': {'bias': array([2, 3])}}}
    """
    rows = rows_of(tree)
    axes = _axes(axis, rows)
    rest, (stacked,) = _taken_out(rows, [naming.one(layers)], axes)
    if not stacked:
        raise _errors.no_module(layers, naming.nearest(layers, rows))
    params = _metadata(metadata_params)
    count = _count(stacked, axes, naming.one(layers))
    targets = naming.absent(into, count)
    naming.check_free(targets, rest, [stacked], _layout.are_haikus(tree))
    made: list[Rows] = [{} for _ in targets]
    for at, leaf in stacked.items():
        parts = [None] * count
        if at.name is not None:
            parts = leaves.unstacked(leaf, axes[at.collection], count, params)
        for own, target, part in zip(made, targets, parts, strict=True):
            own[at.inside(target)] = part
    whole = {at: leaf for own in made for at, leaf in own.items()}
    return tree_of({**rest, **whole}, _layout.are_haikus(tree))


def _axes(axis: int | Mapping[str, int], rows: Rows) -> Mapping[str, int]:
    """The axis of the layers in each collection, as far as it has one."""
    collections = {at.collection for at in rows}
    axes = dict.fromkeys(collections, axis) if isinstance(axis, int) else axis
    if not isinstance(axes, Mapping) or (axes is axis and collections == {""}):
        raise _errors.stack_axis(axis)
    if not all(type(each) is int for each in axes.values()):
        raise _errors.stack_axis(axis)
    return axes


def _metadata(params: Mapping[Any, Any] | None) -> Mapping[Any, Any]:
    return {_flax.linen.PARTITION_NAME: None} if params is None else params


def _taken_out(
    rows: Rows, all_names: Sequence[Module], axes: Mapping[str, int]
) -> tuple[Rows, list[Rows]]:
    """What is in none of the modules, and what is in each, below its name."""
    slots = {name: i for i, name in enumerate(all_names)}
    rest: Rows = {}
    apart: list[Rows] = [{} for _ in slots]
    for at, leaf in rows.items():
        ends = range(1, len(at.module) + 1) if at.collection in axes else ()
        end = next((end for end in ends if at.module[:end] in slots), None)
        if end is None:
            rest[at] = leaf
        else:
            below = at._replace(module=at.module[end:])
            apart[slots[at.module[:end]]][below] = leaf
    return rest, apart


def _count(stacked: Rows, axes: Mapping[str, int], name: Module) -> int:
    """How many layers there are."""
    sizes: dict[int, At] = {}
    for at, leaf in stacked.items():
        try:
            size = None
            if at.name is not None:
                size = leaves.size(leaf, axes[at.collection])
        except leaves.Misfit as misfit:
            raise _errors.no_stack(at.inside(name), *misfit.texts) from None
        if size is not None:
            sizes.setdefault(size, at.inside(name))
    if not sizes or 0 in sizes:
        raise _errors.nothing_to_unstack("/".join(name), sizes.get(0))
    if len(sizes) > 1:
        raise _errors.uneven_stack(*list(sizes.items())[:2])
    return next(iter(sizes))
