"""Where each leaf goes on a mesh: what Flax's annotations mean for Haiku's trees.

`partition_specs` reads the annotations, `named_shardings` puts a mesh to them.
"""

from collections.abc import Callable
from collections.abc import Mapping
import contextlib
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from hk_bridge import _abstract
from hk_bridge import _boxes
from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _layout

__docformat__ = "google"  # for pdoc
__all__ = ["named_shardings", "partition_specs"]

Specs = dict[str, dict[str, Any]]


def partition_specs(
    init: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> tuple[Specs, Specs]:
    """How Haiku's params and state are to be partitioned, as their Flax modules say.

    After `flax.linen.get_partition_spec`. The specs are read from the metadata of the
    Flax modules: `nn.with_partitioning`, `nn.with_logical_partitioning`, the axes that
    `nn.scan` and `nn.vmap` add by `metadata_params`, sharding annotations of NNX, and
    what `flax.linen.partitioning` sows (`param_with_axes`, `scan_with_axes`, as T5X).
    Logical names become axes of the mesh by the rules of the box, else by the
    `nn.logical_axis_rules` in force; where there are none, they stay as they are.
    Axes that Haiku or `jax.vmap` adds (by `hk.experimental.layer_stack`, or `hk.lift`
    of a `jax.vmap`) are not partitioned; they are told by their sizes, and taken to be
    in front of axes of the same size. Nor are leaves to which a creator gave fewer axes
    than the annotation names.

    Args:
      init: the `init` of an `hk.transform` or `hk.transform_with_state`.
      *args: what `init` takes. It runs by shapes alone, so nothing is allocated, and
        any array may be a `jax.ShapeDtypeStruct`.
      **kwargs: keyword arguments of `init`.

    Returns:
      `(params, state)`, two trees of the shape of Haiku's, with a `PartitionSpec` for
      each array. That is `PartitionSpec()` for leaves of Haiku's own modules and for
      leaves without an annotation. After a plain `hk.transform`, whose `init` returns
      params alone, `state` is empty: `params, _ = partition_specs(f.init, ...)`.

    Raises:
      TypeError: `init` is no `init` of Haiku.

    >>> import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    >>> from hk_bridge import FlaxModule
    >>> init_fn = nn.with_logical_partitioning(nn.initializers.ones, ("embed", "mlp"))
    >>> def forward(x):
    ...     return hk.Linear(2)(FlaxModule(nn.Dense(8, kernel_init=init_fn))(x))
    >>> f = hk.transform_with_state(forward)
    >>> x = jax.ShapeDtypeStruct([2, 4], jnp.float32)
    >>> with nn.logical_axis_rules([("mlp", "model")]):
    ...     params, state = partition_specs(f.init, jax.random.key(0), x)
    >>> [tuple(spec) for spec in params["dense"].values()], tuple(params["linear"]["w"])
    ([(), (None, 'model')], ())
    """
    if not callable(init):
        raise _errors.not_an_init(init)
    made, annotations = _made(init, args, kwargs)
    pair = isinstance(made, tuple) and len(made) == 2
    params, state = made if pair else (made, {})
    if not (_layout.are_haikus(params) and _layout.are_haikus(state)):
        raise _errors.not_an_init(init)
    return _specs(params, annotations, True), _specs(state, annotations, False)


def _made(init: Any, args: Any, kwargs: Any) -> tuple[Any, _boxes.Annotations]:
    """What `init` makes, by shapes alone, and what the boxes say of it."""
    mesh = _flax.explicit_mesh()
    try:
        with _boxes.listening() as annotations:
            return _abstract.evaluate(init, *args, **kwargs), annotations
    except Exception as error:
        if mesh is None or not _flax.is_about_sharding(error):
            raise
        # On axes of type Explicit a constraint may fail, by which nothing is told. On
        # others, arrays that `init` closes over may.
        auto = jax.sharding.use_abstract_mesh(_flax.with_auto_axes(mesh))
        args, kwargs = jax.tree.map(_on_no_mesh, (args, kwargs))
        with auto, contextlib.suppress(Exception), _boxes.listening() as annotations:
            return _abstract.evaluate(init, *args, **kwargs), annotations
        raise


def _on_no_mesh(leaf: Any) -> Any:
    """An array by its shape alone; all else as it is."""
    if not isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
        return leaf
    weak = jax.typeof(leaf).weak_type
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=weak)


def named_shardings(mesh: jax.sharding.Mesh, specs: Any) -> Any:
    """`specs` as shardings over `mesh`, for `jax.jit(f.init, out_shardings=...)`.

    So a model that is larger than one device is never whole on one:

    >>> import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    >>> from hk_bridge import FlaxModule
    >>> init_fn = nn.with_partitioning(nn.initializers.ones, (None, "model"))
    >>> dense = nn.Dense(8, kernel_init=init_fn)
    >>> f = hk.transform_with_state(lambda x: FlaxModule(dense)(x))
    >>> key, x = jax.random.key(0), jnp.ones([2, 4])
    >>> auto = (jax.sharding.AxisType.Auto,)
    >>> mesh = jax.make_mesh((1,), ("model",), axis_types=auto)
    >>> shardings = named_shardings(mesh, partition_specs(f.init, key, x))
    >>> params, state = jax.jit(f.init, out_shardings=shardings)(key, x)
    >>> tuple(params["dense"]["kernel"].sharding.spec)
    (None, 'model')

    Args:
      mesh: has the axes that the specs name. Where it is set (`jax.set_mesh`), linen's
        annotations and constraints inside modules want axes of type
        `jax.sharding.AxisType.Auto`, as in Flax; unless it is told, the `jax.make_mesh`
        of newer JAX gives others. NNX takes axes that are all Auto or all Explicit.
      specs: any tree of `PartitionSpec`s, as `partition_specs` returns it.

    Returns:
      The tree with a `NamedSharding` in the place of each spec.

    Raises:
      ValueError: JAX's own, for an axis that `mesh` lacks, with a note of the leaf.
      TypeError: a leaf is no `PartitionSpec`.
    """

    def sharding(path: Any, spec: Any) -> NamedSharding:
        where = jax.tree_util.keystr(path)
        if not isinstance(spec, PartitionSpec):
            raise _errors.not_a_spec(where, spec)
        try:
            return NamedSharding(mesh, spec)
        except Exception as error:
            error.add_note(_errors.note_axes(where, spec, mesh.axis_names))
            raise

    is_spec = lambda leaf: isinstance(leaf, PartitionSpec)
    return jax.tree_util.tree_map_with_path(sharding, specs, is_leaf=is_spec)


def _specs(
    bundles: Mapping[str, Mapping[str, Any]],
    annotations: _boxes.Annotations,
    of_params: bool,
) -> Specs:
    """The specs of all leaves of `bundles`."""

    def specs(leaf: Any, annotated: list[_boxes.Annotation] | None) -> Any:
        arrays, treedef = jax.tree.flatten(leaf)
        if annotated is None:
            return jax.tree.unflatten(treedef, [PartitionSpec()] * len(arrays))
        partitioned = [
            _partitioned(array.shape, annotation)
            for array, annotation in zip(arrays, annotated, strict=True)
        ]
        return jax.tree.unflatten(treedef, partitioned)

    return {
        module_name: {
            name: specs(leaf, annotations.get((of_params, module_name, name)))
            for name, leaf in bundle.items()
        }
        for module_name, bundle in bundles.items()
    }


def _partitioned(
    shape: tuple[int, ...], annotation: _boxes.Annotation
) -> PartitionSpec:
    """The spec of an array of `shape`, which has the axes of `annotation` and others.

    >>> annotation = _boxes.Annotation(PartitionSpec("a", "b"), (4, 8))
    >>> [tuple(_partitioned(s, annotation)) for s in [(4, 8), (3, 4, 8), (4, 3, 8)]]
    [('a', 'b'), (None, 'a', 'b'), ('a', None, 'b')]
    """
    if len(annotation.spec) > len(annotation.shape):
        # An error of the user's, that is JAX's to tell.
        return PartitionSpec(
            *[None] * (len(shape) - len(annotation.shape)), *annotation.spec
        )
    sizes, own = list(annotation.shape), list[int]()
    for axis in reversed(range(len(shape))):
        if sizes and sizes[-1] == shape[axis]:
            own.insert(0, axis)
            sizes.pop()
    if sizes:  # a creator changed one of them
        own = list(range(len(shape)))[-len(annotation.shape) :]
    if len(annotation.spec) > len(own):
        return PartitionSpec()
    names: dict[int, Any] = dict(zip(own, annotation.spec, strict=False))
    return PartitionSpec(*map(names.get, range(1 + max(names, default=-1))))
