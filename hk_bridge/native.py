"""Haiku's own equivalents of Flax's layers, where the mathematics is the same.

A twin is a layer of Haiku with the weights of a layer of Flax. "Exact" means that both
run the same arithmetic: outputs are equal to the last bit where XLA compiles them alike
(op by op, always). Of the others, float32 outputs of scale 1 agree to 1e-6, but for
GroupNorm's where a variance is small: see there. Inputs are to have the dtype of the
weights, or float32 where a layer has none. What is not listed has no twin and is
refused.

* Dense: `hk.Linear`, exact. Conv: `hk.ConvND`, exact; one batch axis or none, no input
  dilation, no circular or reflected padding. ConvTranspose: `hk.ConvNDTranspose`,
  exact; no kernel dilation, no circular padding.
* Embed: `hk.Embed`, exact for ids in range (beyond it linen gives NaN, Haiku the last
  row); no `attend`.
* LayerNorm: `hk.LayerNorm`, exact with the fast variance. RMSNorm: `hk.RMSNorm`.
  GroupNorm: `hk.GroupNorm`, which has the slow variance only; where the variance of a
  group is small against its squared mean, as it may be for few values, linen's fast one
  is off in proportion to their ratio, and the twin is not. Linen clips the fast
  variance at zero, Haiku does not: to be seen where it is below the rounding of the
  squared mean. A GroupNorm has a batch axis, unless `ndim=1` is given: without it,
  Haiku's gives the bias alone for an input `[C]`. The calls take no `mask`.
* BatchNorm: `hk.BatchNorm`, exact with the fast variance, which is Haiku's only one.
  `hidden` and `average` are linen's statistic, and `counter` is so late that Haiku's
  debiasing divides by 1: evaluation is equal, and training goes on with linen's
  recurrence. In evaluation Haiku's `init` cannot make that state ("No value for
  'average'"): give `apply` the twin's own. The weight of a new value, `1 - momentum`,
  is rounded in two ways, so in float32 averages differ by up to
  `2**-25 / (1 - momentum)` of the batch statistics in the long run: 3e-6 for linen's
  0.99, nothing for 0.5 or 0.75.
* LSTMCell, OptimizedLSTMCell: `hk.LSTM`, where linen's carry `(c, h)` is
  `hk.LSTMState(hidden=h, cell=c)`. Haiku adds 1 to the forget gate, so the twin's bias
  has 1 taken away; `to_flax` gives it back to the bit where it did not change.
* MultiHeadDotProductAttention, MultiHeadAttention: `hk.MultiHeadAttention`, without
  dropout, and not in float16, where Haiku's mask gives NaN for a row without keys.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout

__all__ = ["Twin", "TwinError", "twin"]

_linen = _flax.linen
hk = _haiku.native
_Turn = Callable[[Any], Any]  # of one leaf
_same: _Turn = lambda leaf: leaf


class TwinError(ValueError):
    """A Flax layer, or a configuration of it, has no exact twin in Haiku.

    >>> import flax.linen as nn
    >>> try:
    ...     twin(nn.Conv(4, (3,), padding="CIRCULAR"), {}, name="conv")
    ... except TwinError as error:
    ...     print(str(error).split(",")[0])
    Conv(padding='CIRCULAR') has no exact twin in Haiku
    """


def _all(*leaves: Any) -> tuple[Any, ...]:
    return leaves


class _Move(NamedTuple):
    """Some leaves of Haiku that are made of some leaves of Flax, and back."""

    haiku: Sequence[str]  # `w` or `linear/w`, below the layer
    flax: Sequence[str]  # `params/kernel`
    to_haiku: Callable[..., tuple[Any, ...]] = _all
    to_flax: Callable[..., tuple[Any, ...]] = _all

    @property
    def is_state(self) -> bool:
        return not self.flax[0].startswith("params/")

    def addresses(self, name: str) -> list[tuple[str, str]]:
        """The module name and leaf name of each leaf of Haiku."""
        names = [f"{name}/{leaf}".rpartition("/") for leaf in self.haiku]
        return [(module_name, leaf) for module_name, _, leaf in names]


@dataclasses.dataclass(frozen=True, eq=False)
class Twin:
    """A layer of Haiku that equals a layer of Flax, made by `twin`.

    Attributes:
      name: the full Haiku name of the layer, `linear` or `encoder/~/linear`.
      layer: the class of the layer, `hk.Linear`.
      arguments: what its constructor needs for equal results.
      call: how it is called, as text.
      call_arguments: keywords that its call needs for equal results.
      params: Haiku params, `{module name: {leaf name: leaf}}`.
      state: Haiku state, likewise.
      exact: whether both layers run the same arithmetic.

    >>> import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    >>> layer, x = nn.RMSNorm(), jnp.arange(8.0).reshape(2, 4)
    >>> variables = layer.init(jax.random.key(0), x)
    >>> native = twin(layer, variables, name="n")
    >>> native
    hk.RMSNorm(axis=(-1,), param_axis=(-1,), eps=1e-06, create_scale=True, name='n')(x)
    >>> f = hk.transform(lambda x: native.make()(x, **native.call_arguments))
    >>> y = f.apply(native.params, None, x)
    >>> bool(jnp.allclose(y, layer.apply(variables, x), atol=1e-6))
    True
    """

    name: str
    layer: type[hk.Module]
    arguments: Mapping[str, Any]
    call: str
    call_arguments: Mapping[str, Any]
    params: dict[str, dict[str, Any]]
    state: dict[str, dict[str, Any]]
    exact: bool
    _collections: Sequence[str]
    _moves: Sequence[_Move]

    def make(self) -> Any:
        """The layer, to be called inside a transform.

        Its own name is the last part of `name`. Build it where Haiku adds the rest:
        `encoder/~/linear` in the constructor of a module `encoder`. Its initialisers
        are Haiku's, and those of `hk.Embed` make float32 whatever the twin has; the
        weights of the Flax layer are in `params` and `state`.

        Returns:
          A new instance of `layer`.
        """
        return self.layer(**self.arguments, name=self.name.split("/")[-1])

    def to_flax(
        self,
        params: _layout.Bundles | None,
        state: _layout.Bundles | None = None,
        *,
        like: _layout.Variables | None = None,
    ) -> dict[str, Any]:
        """The variables of the Flax layer that equals this layer with these weights.

        Entries of other modules are ignored. Gradients can be converted, too, but for
        the LSTM's, whose bias is moved by 1.

        Args:
          params: Haiku params, of a whole network or of this layer.
          state: Haiku state, likewise.
          like: variables whose boxes (`nn.Partitioned` and the like) are put back.

        Returns:
          `{collection: nested dict}`, new plain dicts.

        Raises:
          VariablesError: a leaf of the layer is missing.
        """
        variables: dict[str, Any] = {collection: {} for collection in self._collections}
        for move in self._moves:
            which = "state" if move.is_state else "params"
            bundles = (state if move.is_state else params) or {}
            leaves = []
            for module_name, leaf in move.addresses(self.name):
                if leaf not in bundles.get(module_name, {}):
                    raise _lacks(which, module_name, leaf)
                leaves.append(bundles[module_name][leaf])
            for key, value in zip(move.flax, move.to_flax(*leaves), strict=True):
                *parents, last = key.split("/")
                level = variables
                for part in parents:
                    level = level.setdefault(part, {})
                level[last] = value
        return variables if like is None else _layout.rebox(variables, like)

    def __repr__(self) -> str:
        arguments = {**self.arguments, "name": self.name.split("/")[-1]}
        return f"hk.{self.layer.__name__}({_listed(arguments)})({self.call})"


def twin(
    linen_module: Any,
    variables: _layout.Variables,
    *,
    name: str,
    ndim: int | None = None,
) -> Twin:
    """Haiku's own layer for a Flax layer, with its weights.

    Leaves are handed over untouched where the shapes agree, else reshaped; their dtype
    is kept, boxes are opened. Neither argument changes.

    Args:
      linen_module: the Flax layer, of a class that the docstring of this module lists
        (its subclasses may compute something else, and are refused).
      variables: its variables, as its `init` returns them; `FrozenDict` will do.
      name: the full name of the layer in Haiku, `linear` or `encoder/~/linear`.
      ndim: how many axes the input has, batch and channels included: needed where the
        shapes of Haiku's leaves depend on it, for BatchNorm and for feature axes other
        than the last; and 1 for the GroupNorm of an input `[C]`, as under `jax.vmap`.

    Returns:
      The twin, whose `repr` is the line to write in Haiku.

    Raises:
      ModuleTypeError: `linen_module` is no linen module instance.
      TwinError: the class or its configuration has no twin, or `ndim` is needed, or
        is no number of axes that the input can have.
      VariablesError: `variables` do not have the leaves of the layer, in the shapes
        that linen gives them in this configuration.

    >>> import flax.linen as nn, jax, jax.numpy as jnp
    >>> variables = nn.Dense(4).init(jax.random.key(0), jnp.ones([2, 3]))
    >>> native = twin(nn.Dense(4), variables, name="encoder/~/linear")
    >>> native
    hk.Linear(output_size=4, with_bias=True, name='linear')(x)
    >>> jax.tree.map(jnp.shape, native.params)
    {'encoder/~/linear': {'b': (4,), 'w': (3, 4)}}
    >>> jax.tree.map(jnp.shape, native.to_flax(native.params))
    {'params': {'bias': (4,), 'kernel': (3, 4)}}
    """
    _errors.check_name(name)
    if not isinstance(linen_module, _linen.Module):
        raise _not_a_layer(linen_module)
    _layout.to_haiku(variables, name=name)  # refuses what has not the form of variables
    leaves = _Leaves(linen_module, variables)
    row = _row(linen_module)
    _check_fields(linen_module, row, leaves)
    plan = row.plan(linen_module, leaves, ndim)
    _check_leaves(linen_module, plan, leaves)
    trees: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for move in plan.moves:
        made = move.to_haiku(*[leaves[key] for key in move.flax])
        for (module_name, leaf), value in zip(move.addresses(name), made, strict=True):
            trees[move.is_state].setdefault(module_name, {})[leaf] = value
    exact = row.exact and getattr(linen_module, "use_fast_variance", True)
    arguments = (plan.arguments, plan.call, plan.call_arguments)
    return Twin(name, row.layer, *arguments, *trees, exact, list(variables), plan.moves)


class _Leaves(dict[str, Any]):
    """The leaves of the given variables, by `params/kernel`."""

    def __init__(self, module: Any, variables: _layout.Variables):
        self.module = module
        for (collection, path), leaf in _layout.leaves(variables):
            key = "/".join((collection, *path))
            if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
                raise _misfit(module, key, f"they hold {leaf!r}, which is no array")
            self[key] = leaf

    def __missing__(self, key: str) -> Any:
        raise _misfit(self.module, key, "they lack this leaf of the layer")

    def size(self, key: str, axis: int) -> int:
        """The size of a leaf along `axis`, which is negative; 1 if it has too few."""
        shape = self[key].shape
        return int(shape[axis]) if len(shape) >= -axis else 1


def _check_leaves(module: Any, plan: "_Plan", leaves: _Leaves) -> None:
    """Refuses leaves that linen would not make, for inputs of the sizes they tell."""
    try:
        with jax.numpy_dtype_promotion("standard"):  # linen mixes dtypes
            made = _abstract.evaluate(module.init, jax.random.key(0), *plan.inputs)
    except Exception as error:  # of linen, about sizes that do not go together
        raise _no_layer(module, leaves, error) from error
    expected = {"/".join((c, *path)): leaf for (c, path), leaf in _layout.leaves(made)}
    for key in sorted(leaves.keys() - expected.keys()):
        raise _misfit(module, key, "they hold a leaf that the layer has not")
    for key, leaf in expected.items():
        if leaves[key].shape != leaf.shape:
            given, makes = list(leaves[key].shape), list(leaf.shape)
            what = f"they hold shape {given}, where the layer makes {makes}"
            raise _misfit(module, key, what)


# What each layer becomes.


class _Plan(NamedTuple):
    """How a layer is built, from which leaves, and how it is called.

    `inputs` are inputs of the linen layer for which it makes leaves of these sizes.
    """

    arguments: Mapping[str, Any]
    moves: Sequence[_Move]
    inputs: Sequence[Any]
    call: str = "x"
    call_arguments: Mapping[str, Any] = {}


def _each(function: _Turn) -> Callable[..., tuple[Any, ...]]:
    return lambda *leaves: tuple(map(function, leaves))


def _shaped(shape: Sequence[int]) -> _Turn:
    """A reshape, which leaves alone what has the shape."""
    shape = tuple(shape)
    return lambda leaf: leaf if leaf.shape == shape else leaf.reshape(shape)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _linear(
    module: Any, arguments: Mapping[str, Any], shape: Sequence[int], turn: _Turn = _same
) -> _Plan:
    """The plan of a layer with a kernel and a bias, for an input of `shape`.

    `turn` is its own inverse.
    """
    moves = [_Move(["w"], ["params/kernel"], _each(turn), _each(turn))]
    moves += [_Move(["b"], ["params/bias"])] * module.use_bias
    arguments = {**arguments, "with_bias": module.use_bias}
    inputs = [_floats(*shape)]
    if module.precision is None:
        return _Plan(arguments, moves, inputs)
    precision = {"precision": module.precision}
    return _Plan(arguments, moves, inputs, f"x, {_listed(precision)}", precision)


def _dense(module: Any, leaves: _Leaves, ndim: int | None) -> _Plan:
    shape = [leaves.size("params/kernel", -2)]
    return _linear(module, {"output_size": module.features}, shape)


def _axes(axes: int | Sequence[int] | None, n: int = 1) -> tuple[int, ...]:
    """`axes` as a tuple, a number `n` times; None is 1, as in linen's convolutions."""
    axes = 1 if axes is None else axes
    return (axes,) * n if isinstance(axes, int) else tuple(axes)


def _conv_arguments(
    module: Any, paddings: Sequence[str], turn: _Turn = _same
) -> dict[str, Any]:
    size = _axes(module.kernel_size)
    padding = module.padding
    if padding == "CAUSAL" and padding in paddings:
        padding = ((_axes(module.kernel_dilation)[0] * (size[0] - 1), 0),)
    if isinstance(padding, str):
        expected = f"{', '.join(map(repr, paddings))} or pairs of integers"
        _expect(module, "padding", padding in paddings, expected)
    else:
        padding = _linen.linear.canonicalize_padding(padding, len(size))
    arguments = {
        "num_spatial_dims": len(size),
        "output_channels": module.features,
        "kernel_shape": size,
        "stride": _axes(module.strides, len(size)),
        "padding": padding,
        "data_format": "channels_last",
    }
    if module.mask is not None:
        arguments["mask"] = turn(module.mask)
    return arguments


def _conv(module: Any, leaves: _Leaves, ndim: int | None) -> _Plan:
    paddings = ["SAME", "SAME_LOWER", "VALID"]
    paddings += ["CAUSAL"] * (len(_axes(module.kernel_size)) == 1)
    arguments = _conv_arguments(module, paddings)
    _expect(module, "input_dilation", set(_axes(module.input_dilation)) == {1}, "1")
    groups, size = module.feature_group_count, arguments["kernel_shape"]
    arguments["rate"] = _axes(module.kernel_dilation, len(size))
    arguments["feature_group_count"] = groups
    shape = (*size, groups * leaves.size("params/kernel", -2))
    return _linear(module, arguments, shape)


def _conv_transpose(module: Any, leaves: _Leaves, ndim: int | None) -> _Plan:
    _expect(module, "kernel_dilation", set(_axes(module.kernel_dilation)) == {1}, "1")

    def turn(kernel: Any) -> Any:  # to [..., out, in], unflipped
        if module.transpose_kernel:
            return kernel[(slice(None, None, -1),) * len(_axes(module.kernel_size))]
        return kernel.swapaxes(-1, -2)

    arguments = _conv_arguments(module, ["SAME", "VALID"], turn)
    channels = leaves.size("params/kernel", -1 if module.transpose_kernel else -2)
    return _linear(module, arguments, (*arguments["kernel_shape"], channels), turn)


def _embed(module: Any, leaves: _Leaves, ndim: int | None) -> _Plan:
    arguments = {"vocab_size": module.num_embeddings, "embed_dim": module.features}
    move = _Move(["embeddings"], ["params/embedding"])
    return _Plan(arguments, [move], [jax.ShapeDtypeStruct((1,), jnp.int32)], "ids")


def _affine(
    module: Any, leaves: _Leaves, to_haiku: _Turn = _same
) -> tuple[dict[str, Any], list[_Move]]:
    """The arguments and parameters that all normalising layers have."""
    wide = lambda d: jnp.issubdtype(d, jnp.floating) and d.itemsize >= 4
    expected = "float32 ones, as linen takes the statistics in float32, of |x|^2"
    _expect_leaves(module, leaves, wide, expected)
    arguments, moves = {"eps": module.epsilon}, []
    for flax, haiku in [("scale", "scale"), ("bias", "offset")]:
        used = getattr(module, f"use_{flax}", None)  # RMSNorm has no bias
        if used is not None:
            arguments[f"create_{haiku}"] = used
        if used:
            key = f"params/{flax}"
            back = _shaped(leaves[key].shape)
            moves.append(_Move([haiku], [key], _each(to_haiku), _each(back)))
    return arguments, moves


def _rank(module: Any, axes: Sequence[int], ndim: int | None) -> int:
    """`ndim`, or else the least number of axes that an input with `axes` has."""
    least = max((axis + 1 if axis >= 0 else -axis for axis in axes), default=1)
    if ndim is None:
        return least
    if not isinstance(ndim, int) or ndim < least:
        raise _bad_ndim(module, ndim, least)
    return ndim


def _normalised(
    moves: Sequence[_Move],
    leaves: _Leaves,
    axes: Sequence[int],
    rank: int,
    unknown: int = 1,
) -> jax.ShapeDtypeStruct:
    """An input with the features of the leaves along `axes`, `unknown` without any."""
    shape = [1] * rank
    for place, axis in enumerate(axes):
        key = moves[0].flax[0] if moves else None
        shape[axis] = leaves.size(key, place - len(axes)) if key else unknown
    return _floats(*shape)


def _features(
    module: Any, field: str, ndim: int | None
) -> tuple[tuple[int, ...], tuple[int, ...], _Turn]:
    """The feature axes, the other axes, and how Haiku shapes a leaf of the former."""
    given = _axes(getattr(module, field))
    if ndim is None:
        raise _needs_ndim(module)
    ndim = _rank(module, given, ndim)
    axes = tuple(sorted({axis % ndim for axis in given}))
    rest = tuple(axis for axis in range(ndim) if axis not in axes)

    def broadcast(leaf: Any) -> Any:
        sizes = dict(zip(axes, leaf.shape, strict=True))
        return _shaped([sizes.get(axis, 1) for axis in range(ndim)])(leaf)

    return axes, rest, broadcast


def _layer_norm(module: Any, leaves: _Leaves, ndim: int | None) -> _Plan:
    axes, to_haiku = _axes(module.feature_axes), _same
    if axes != (-1,):
        axes, rest, broadcast = _features(module, "feature_axes", ndim)
        if axes != (len(rest),):  # Haiku has [C] for the last axis, [1, H, C] for more
            to_haiku = broadcast
    affine, moves = _affine(module, leaves, to_haiku)
    reduced = _axes(module.reduction_axes)
    rank = _rank(module, [*reduced, *axes], ndim)
    arguments = {"axis": reduced, "param_axis": axes, **affine}
    if isinstance(module, _linen.LayerNorm):
        arguments["use_fast_variance"] = module.use_fast_variance
    return _Plan(arguments, moves, [_normalised(moves, leaves, axes, rank)])


def _group_norm(module: Any, leaves: _Leaves, ndim: int | None) -> _Plan:
    axes = _axes(module.reduction_axes) if module.reduction_axes is not None else (-1,)
    counted = min(axes) >= -1  # Haiku splits the last axis in two
    _expect(module, "reduction_axes", counted, "counted from the front, or -1")
    affine, moves = _affine(module, leaves)
    groups = module.num_groups
    if groups is None:
        expected = "None, and num_groups given: there is no leaf to tell the channels"
        _expect(module, "group_size", bool(moves), expected)
    rank = _rank(module, axes, ndim)
    x = _normalised(moves, leaves, [-1], rank, unknown=groups)
    if groups is None:
        groups = x.shape[-1] // module.group_size
    arguments = {"groups": groups, **affine, "data_format": "channels_last"}
    if ndim == 1:  # where Haiku takes axis 0 for the groups
        arguments["axis"] = (-1,)
    elif module.reduction_axes is not None:
        arguments["axis"] = axes
    return _Plan(arguments, moves, [x])


def _batch_norm(module: Any, leaves: _Leaves, ndim: int | None) -> _Plan:
    decays = module.momentum >= 0 and bool(np.float32(module.momentum) < 1)
    _expect(module, "momentum", decays, "at least 0 and, in float32, below 1")
    axes, rest, broadcast = _features(module, "axis", ndim)
    arguments, moves = _affine(module, leaves, broadcast)
    arguments |= {"decay_rate": module.momentum, "data_format": "channels_last"}
    if axes != (len(rest),):
        arguments["axis"] = rest
    if module.axis_name is not None:
        arguments["cross_replica_axis"] = module.axis_name
        arguments["cross_replica_axis_index_groups"] = module.axis_index_groups
    moves += [_average(name, leaves, broadcast) for name in ("mean", "var")]
    x = _normalised(moves, leaves, axes, len(axes) + len(rest))
    if module.use_running_average is None:
        call = "x, is_training=not use_running_average"
        return _Plan(arguments, moves, [x, True], call)
    training = {"is_training": not module.use_running_average}
    return _Plan(arguments, moves, [x], f"x, {_listed(training)}", training)


def _average(name: str, leaves: _Leaves, broadcast: _Turn) -> _Move:
    """A running statistic of linen as `hk.ExponentialMovingAverage`.

    With decay d, Haiku keeps `hidden' = d hidden + (1 - d) value` and evaluates with
    `average' = hidden' / (1 - d ** counter')` (arxiv.org/abs/1412.6980, section 3).
    Linen keeps and evaluates with the first alone.
    """
    # So late that 1 - d ** counter is 1 for every d below 1 of float32, and so early
    # that half of int32 is left to count with.
    counter = jnp.asarray(2**30, jnp.int32)
    key = f"batch_stats/{name}"
    shape = leaves[key].shape
    return _Move(
        [f"~/{name}_ema/{leaf}" for leaf in ("counter", "hidden", "average")],
        [key],
        lambda leaf: (counter, broadcast(leaf), broadcast(leaf)),  # two to donate
        lambda counter, hidden, average: (_shaped(shape)(average),),
    )


def _joined(leaves: Sequence[Any], axis: int = -1) -> Any:
    xp: Any = np if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp
    return xp.concatenate(leaves, axis)


def _lstm(module: Any, leaves: _Leaves, ndim: int | None) -> _Plan:
    n, size = module.features, leaves.size("params/ii/kernel", -2)
    forget = leaves["params/hf/bias"]

    def split(leaf: Any) -> list[Any]:
        return [leaf[..., k * n : (k + 1) * n] for k in range(4)]

    def bias(i: Any, g: Any, f: Any, o: Any) -> tuple[Any]:
        return (_joined([i, g, f - 1, o]),)

    def biases(b: Any) -> tuple[Any, ...]:
        i, g, f, o = split(b)
        # Near zero, f + 1 has lost bits that the given bias has.
        return i, g, jnp.where(f == forget - 1, forget, f + 1), o

    kernels = [f"params/{of}{gate}/kernel" for of in "ih" for gate in "igfo"]
    weights = _Move(
        ["linear/w"],
        kernels,  # in Haiku's order
        lambda *kernels: (_joined([_joined(kernels[:4]), _joined(kernels[4:])], 0),),
        lambda w: (*split(w[:size]), *split(w[size:])),
    )
    names = [f"params/h{gate}/bias" for gate in "igfo"]
    moves = [weights, _Move(["linear/b"], names, bias, biases)]
    inputs = [(_floats(n), _floats(n)), _floats(size)]
    return _Plan({"hidden_size": n}, moves, inputs, "x, hk.LSTMState(hidden=h, cell=c)")


def _attention(module: Any, leaves: _Leaves, ndim: int | None) -> _Plan:
    silent = module.dropout_rate == 0 or bool(module.deterministic)
    _expect(module, "dropout_rate", silent, "0.0, or deterministic to be True")
    holds = lambda d: d.itemsize >= 4 or d == jnp.bfloat16
    expected = "float32 or bfloat16 ones, as Haiku masks with -1e30"
    _expect_leaves(module, leaves, holds, expected)
    moves = []
    for flax in ("query", "key", "value", "out"):
        haiku = "linear" if flax == "out" else flax
        for leaf, name in [("w", "kernel"), ("b", "bias")][: 1 + module.use_bias]:
            key = f"params/{flax}/{name}"
            shape = leaves[key].shape  # [D, H, K] and [H, K]; of out [H, K, D] and [D]
            last = math.prod(shape[-1:] if flax == "out" else shape[-2:])
            flat = _shaped((-1, last) if name == "kernel" else (last,))
            move = _Move([f"{haiku}/{leaf}"], [key], _each(flat), _each(_shaped(shape)))
            moves.append(move)
    names = ("query", "key", "value")
    sizes = [leaves.size(f"params/{name}/kernel", -3) for name in names]
    arguments = {
        "num_heads": module.num_heads,
        "key_size": (module.qkv_features or sizes[0]) // module.num_heads,
        "model_size": module.out_features or sizes[0],
        "with_bias": module.use_bias,
        "w_init": hk.initializers.VarianceScaling(1.0),  # Haiku asks for one
    }
    inputs = [_floats(1, size) for size in sizes]
    return _Plan(arguments, moves, inputs, "query, key, value, mask")


# Which layers have a twin.


class _Row(NamedTuple):
    """A Haiku layer, and the fields of linen that its plan reads or may ignore."""

    layer: type[hk.Module]
    plan: Callable[[Any, _Leaves, int | None], _Plan]
    fields: str
    exact: bool = True


_CONV = "features kernel_size strides padding kernel_dilation use_bias mask precision "
_NORM = "epsilon use_scale use_bias use_fast_variance "
_AXES = _NORM + "reduction_axes feature_axes "
_GROUPS = _NORM + "reduction_axes num_groups group_size "
_BATCH = _NORM + "axis momentum axis_name axis_index_groups use_running_average "
_HEADS = "num_heads qkv_features out_features use_bias dropout_rate deterministic "
_LSTM = _Row(hk.LSTM, _lstm, "features", False)
_MHA = _Row(hk.MultiHeadAttention, _attention, _HEADS + "broadcast_dropout", False)
_TRANSPOSE = _Row(hk.ConvNDTranspose, _conv_transpose, _CONV + "transpose_kernel")
_ROWS: dict[type[Any], _Row] = {
    _linen.Dense: _Row(hk.Linear, _dense, "features use_bias precision"),
    _linen.Conv: _Row(hk.ConvND, _conv, _CONV + "input_dilation feature_group_count"),
    _linen.ConvTranspose: _TRANSPOSE,
    _linen.Embed: _Row(hk.Embed, _embed, "num_embeddings features"),
    _linen.LayerNorm: _Row(hk.LayerNorm, _layer_norm, _AXES),
    _linen.RMSNorm: _Row(hk.RMSNorm, _layer_norm, _AXES, False),
    _linen.GroupNorm: _Row(hk.GroupNorm, _group_norm, _GROUPS, False),
    _linen.BatchNorm: _Row(hk.BatchNorm, _batch_norm, _BATCH),
    _linen.LSTMCell: _LSTM,
    _linen.OptimizedLSTMCell: _LSTM,
    _linen.MultiHeadDotProductAttention: _MHA,
    _linen.MultiHeadAttention: _MHA,
}
_GRU = "r on the product, r * (W h + b): hk.GRU has it on the state, W (r * h)"


def _row(module: Any) -> _Row:
    cls = type(module)
    if cls not in _ROWS:
        names = ", ".join(sorted(cls.__name__ for cls in _ROWS))
        needs = _GRU if cls is _linen.GRUCell else f"one of flax.linen's own {names}"
        raise _refused(module, f"{cls.__module__}.{cls.__qualname__}", needs)
    return _ROWS[cls]


def _check_fields(module: Any, row: _Row, leaves: _Leaves) -> None:
    """Refuses a field that has not its default, unless the plan knows what to do."""
    known = {"name", "parent", "param_dtype", *row.fields.split()}
    for field in dataclasses.fields(module):
        value, default = getattr(module, field.name), field.default
        initialiser = field.name.endswith("_init") and field.name != "carry_init"
        if field.name in known or initialiser or value is default:
            continue
        if field.name == "dtype":
            fits = {leaf.dtype for leaf in leaves.values()} == {jnp.dtype(value)}
            expected = "None, or that of the leaves: see hk.mixed_precision"
            _expect(module, "dtype", fits, expected)
        else:
            fits = not hasattr(value, "shape") and value == default
            _expect(module, field.name, fits, _shown(default))


# Messages.


def _shown(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"<{value.dtype}{list(value.shape)}>"
    if isinstance(value, hk.initializers.VarianceScaling):
        return f"hk.initializers.VarianceScaling({value.scale})"
    return str(getattr(value, "__name__", repr(value)))


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_shown(value)}" for key, value in arguments.items())


def _refused(module: Any, given: str, expected: str) -> TwinError:
    return TwinError(
        f"{given} has no exact twin in Haiku, which would need {expected}. To keep the "
        "Flax layer, write "
        f"hk_bridge.FlaxModule({type(module).__name__}(...), variables=variables)."
    )


def _expect(module: Any, field: str, fits: bool, expected: str) -> None:
    if not fits:
        given = _listed({field: getattr(module, field)})
        expected = f"{field} to be {expected}"
        raise _refused(module, f"{type(module).__name__}({given})", expected)


def _expect_leaves(
    module: Any, leaves: _Leaves, fits: Callable[[Any], bool], expected: str
) -> None:
    for leaf in leaves.values():
        if not fits(leaf.dtype):
            given = f"{type(module).__name__} with {leaf.dtype} leaves"
            raise _refused(module, given, expected)


def _needs_ndim(module: Any) -> TwinError:
    return TwinError(
        f"The leaves of this twin of {type(module).__name__} have as many axes as its "
        "input. Write twin(..., ndim=4) for an input [N, H, W, C]."
    )


def _bad_ndim(module: Any, ndim: Any, least: int) -> TwinError:
    return TwinError(
        f"An input of this {type(module).__name__} has at least {least} axes, but got "
        f"ndim={ndim!r}. Write twin(..., ndim=4) for an input [N, H, W, C]."
    )


def _not_a_layer(value: Any) -> _errors.ModuleTypeError:
    given, line = _shown(value), "twin(nn.Dense(3), variables, name=...), for example"
    if isinstance(value, type):
        given = f"the class {given}"
        if issubclass(value, _linen.Module):
            line = f"twin({value.__name__}(...), variables, name=...) to build it first"
    return _errors.ModuleTypeError(
        f"twin needs a flax.linen.Module instance, but got {given}. Write {line}."
    )


def _misfit(module: Any, key: str, what: str) -> _errors.VariablesError:
    collection, _, path = key.partition("/")
    return _errors.VariablesError(
        f"The variables given for {type(module).__name__} do not fit at collection "
        f"{collection!r}, path {path!r}: {what}. Give those that init returns for a "
        "layer of this configuration."
    )


def _no_layer(module: Any, leaves: _Leaves, error: Exception) -> _errors.VariablesError:
    given = ", ".join(f"{key} {list(leaves[key].shape)}" for key in sorted(leaves))
    says = f"{type(error).__name__}: {str(error).rstrip('.')}"
    return _errors.VariablesError(
        f"The variables given for {type(module).__name__} do not fit. They hold "
        f"{given}, and for an input of such sizes linen raises {says}. Give those that "
        "init returns for a layer of this configuration."
    )


def _lacks(which: str, module_name: str, leaf: str) -> _errors.VariablesError:
    return _errors.VariablesError(
        f"to_flax got {which} without {which}[{module_name!r}][{leaf!r}]. Give what "
        f"the network's init or apply returned, or twin.{which}."
    )
