"""Who wants to know of the boxes that init makes, and what these say of each leaf.

Axes that are named without a box count as well.
"""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import threading
from typing import Any
from typing import NamedTuple

import jax
from jax.sharding import PartitionSpec
import numpy as np

from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout


class Annotation(NamedTuple):
    """What a box says of an array, and the shape that it has inside its module."""

    spec: PartitionSpec
    shape: tuple[int, ...]


# Of the arrays of each leaf, by whether it is of the params, module and leaf name.
Annotations = dict[tuple[bool, str, str], list[Annotation]]


class _Listener(threading.local):
    """Who wants to know of the boxes that `init` makes in this thread."""

    annotations: Annotations | None = None
    depth = 0  # of the transform whose params are meant


_listener = _Listener()
# Part of what JAX remembers a trace by: under a new value, it knows nothing of what was
# traced when nobody listened.
_listening_now = jax.make_user_context()


@contextlib.contextmanager
def listening() -> Iterator[Annotations]:
    """What the boxes say that `init` makes while the block runs, in this thread."""
    before = _listener.annotations, _listener.depth
    annotations: Annotations = {}
    _listener.annotations, _listener.depth = annotations, _haiku.depth() + 1
    try:
        with _listening_now(object()):
            yield annotations
    finally:
        _listener.annotations, _listener.depth = before


# The boxes that init gave the variables of a module, by what is known of the module.
_known: dict[Any, dict[str, Any]] = {}
_MOST = 1024


def remember(module: Any, variables: Mapping[str, Any]) -> None:
    """At init: remembers the boxes that `module` gave its variables."""
    boxes = _layout.boxes_of(variables)
    key = _flax.key_of(module) if boxes else None
    if key is not None:
        if len(_known) >= _MOST:
            _known.clear()
        _known[key] = {**_known.get(key, {}), **boxes}


def put_back(module: Any, variables: dict[str, Any]) -> None:
    """Puts `variables` into the boxes that init gave them, in place, if it ran here."""
    # A Variable of NNX says itself how it is sharded.
    asked = _known and not _flax.is_nnx(module)
    boxes = _known.get(_flax.key_of(module)) if asked else None
    if boxes:
        _layout.box_in_place(variables, boxes)


def note_boxes(name: str, module: Any, variables: dict[str, Any]) -> None:
    """At init: tells who listens what the boxes in `variables` of `module` say.

    Args:
      name: the name of the module in Haiku.
    """
    if _listener.annotations is None or _haiku.depth() != _listener.depth:
        return  # the params of a transform that is not lifted go nowhere
    name = _haiku.lift_prefix() + name
    boxed = _flax.annotated(module, variables)
    for collection, tree in boxed.items():
        axes = _flax.axes_of(variables, collection)
        for path, spec, leaf in (*_named(tree, axes, ()), *_annotated(tree, (), None)):
            address = _layout.address(name, _layout.Where(collection, path))
            annotated = list(_of_arrays(leaf, spec))
            _listener.annotations[collection == _layout.PARAMS, *address] = annotated


def _of_arrays(leaf: Any, spec: PartitionSpec | None) -> Iterator[Annotation]:
    """What is said of each array of `leaf`: by `spec`, or by boxes in lists."""
    for part in jax.tree.leaves(leaf, is_leaf=_layout.is_box):
        own, box = spec, part
        while own is None and _layout.is_box(box):
            own, box = _flax.partition_spec(box), _layout.open_box(box)
        for array in jax.tree.leaves(part):
            yield Annotation(PartitionSpec() if own is None else own, np.shape(array))


def _named(
    tree: Any, axes: Any, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], PartitionSpec | None, Any]]:
    """The path, spec and value of each leaf of `tree` that `axes` name the axes of."""
    for key, value in axes.items() if _layout.is_level(tree) else ():
        if _layout.is_level(value):
            yield from _named(tree.get(key, {}), value, (*path, key))
        elif (found := _flax.named(key, value)) and found[0] in tree:
            yield from _annotated(tree[found[0]], (*path, found[0]), found[1])


def _annotated(
    tree: Any, path: tuple[str, ...], spec: PartitionSpec | None
) -> Iterator[tuple[tuple[str, ...], PartitionSpec | None, Any]]:
    """The path, spec and value of each leaf in a box that has a spec, or with boxes."""
    if _layout.is_box(tree):
        spec = _flax.partition_spec(tree) if spec is None else spec
        yield from _annotated(_layout.open_box(tree), path, spec)
    elif _layout.is_level(tree):
        for key, value in tree.items():
            yield from _annotated(value, (*path, key), spec)
    elif spec is not None or any(
        map(_layout.is_box, jax.tree.leaves(tree, is_leaf=_layout.is_box))
    ):
        yield path, spec, tree
