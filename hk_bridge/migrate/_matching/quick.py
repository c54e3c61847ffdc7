"""Common primitives in NumPy, which compiles nothing: a network has many shapes."""

from collections.abc import Callable
import itertools
from typing import Any

import numpy as np

# Multiplications in a product: those of a piece, of the sides of one, and those for
# which threads are worth it.
_PIECE, _SIDE, _MANY = 1 << 18, 64, 1 << 25
_SIMPLE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "neg": np.negative,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log1p": np.log1p,
    "expm1": np.expm1,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "logistic": lambda x: 0.5 * (1 + np.tanh(0.5 * x)),
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "stop_gradient": lambda x: x,
    "copy": lambda x: x,
    "copy_p": lambda x: x,
    "optimization_barrier": lambda *xs: xs,
}
_BOOLEAN = {"and": np.logical_and, "or": np.logical_or, "not": np.logical_not}
_REDUCED: dict[str, Callable[..., Any]] = {
    "reduce_sum": np.sum,
    "reduce_max": np.max,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_and": np.all,
    "reduce_or": np.any,
}
_SHAPES: dict[str, Callable[..., Any]] = {
    "transpose": lambda x, p: x.transpose(p["permutation"]),
    "squeeze": lambda x, p: x.squeeze(tuple(p["dimensions"])),
    "expand_dims": lambda x, p: np.expand_dims(x, tuple(p["dimensions"])),
    "slice": lambda x, p: _sliced(x, p),
    "broadcast_in_dim": lambda x, p: _broadcast(x, p),
    "integer_pow": lambda x, p: x ** p["y"] if x.dtype.kind == "f" else None,
    "rev": lambda x, p: np.flip(x, tuple(p["dimensions"])),
}


# What rounds as XLA does, to the last bit.
_EXACT = {"add", "add_any", "sub", "mul", "div", "neg", "max", "min", "sqrt", "square"}
_EXACT |= {"abs", "floor", "ceil", "eq", "ne", "lt", "le", "gt", "ge", "select_n"}
_EXACT |= {"and", "or", "not", "stop_gradient", "copy", "copy_p", "reshape", "iota"}
_EXACT |= {"concatenate", "split", "reduce_max", "reduce_min", "reduce_and"}
_EXACT |= {"reduce_or", "pad", "optimization_barrier", *_SHAPES} - {"integer_pow"}


def quick(
    name: str, params: dict[str, Any], values: list[Any], exact: bool = False
) -> Any:
    """The result of a primitive, or None if it is none of these.

    Args:
      name: of the primitive.
      params: of the primitive.
      values: its operands.
      exact: whether only what gives the same bits as XLA is done.
    """
    if any(not isinstance(value, (np.ndarray, np.generic)) for value in values):
        return None
    if exact and not (
        name in _EXACT and all(value.dtype.kind in "fiub" for value in values)
    ):
        return None
    if name in _SIMPLE:
        return _SIMPLE[name](*values)
    floats = all(value.dtype.kind == "f" for value in values)
    if name in ("div", "pow") and floats:
        return np.divide(*values) if name == "div" else np.power(*values)
    if name in _BOOLEAN and all(value.dtype == bool for value in values):
        return _BOOLEAN[name](*values)
    if name in _REDUCED:
        kinds = {} if "max" in name or "min" in name else {"dtype": values[0].dtype}
        kinds = {} if name in ("reduce_and", "reduce_or") else kinds
        return np.asarray(
            _REDUCED[name](values[0], axis=tuple(params["axes"]), **kinds)
        )
    if name in _SHAPES and len(values) == 1:
        return _SHAPES[name](values[0], params)
    if name == "reshape" and params.get("dimensions") is None and len(values) == 1:
        return values[0].reshape(params["new_sizes"])
    if name == "concatenate":
        return np.concatenate(values, params["dimension"])
    if name == "split":
        ends = np.cumsum(params["sizes"])[:-1]
        return tuple(np.split(values[0], ends, params["axis"]))
    if name == "iota":
        return _counted(**{k: params[k] for k in ("dtype", "shape", "dimension")})
    if name == "pad":
        return _padded(values[0], values[1], params["padding_config"])
    if name == "select_n" and values[0].dtype == bool and len(values) == 3:
        return np.where(values[0], values[2], values[1])
    if name == "dot_general" and floats:
        return _product(values[0], values[1], params["dimension_numbers"])
    if name == "conv_general_dilated" and floats:
        return _convolution(values[0], values[1], params)
    return None


def _counted(dtype: Any, shape: tuple[int, ...], dimension: int) -> Any:
    form = [size if axis == dimension else 1 for axis, size in enumerate(shape)]
    return np.broadcast_to(
        np.arange(shape[dimension], dtype=dtype).reshape(form), shape
    )


def _padded(x: Any, fill: Any, config: Any) -> Any:
    if any(low < 0 or high < 0 for low, high, _ in config):
        return None
    x = _spread(x, [inner + 1 for *_, inner in config], fill)
    return np.pad(x, [(low, high) for low, high, _ in config], constant_values=fill)


def _convolution(x: Any, kernel: Any, params: dict[str, Any]) -> Any:
    """A convolution as a product for each place in the kernel, or in the result."""
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    x = x.transpose(numbers.lhs_spec)  # [N, C, *spatial]
    kernel = kernel.transpose(numbers.rhs_spec)  # [O, C / groups, *spatial]
    batches = params["batch_group_count"]
    if batches > 1:  # groups of batches are groups of features
        x = np.moveaxis(x.reshape(batches, -1, *x.shape[1:]), 0, 1)
        x, groups = x.reshape(x.shape[0], -1, *x.shape[3:]), batches
    x = np.moveaxis(_spread(x, [1, 1, *params["lhs_dilation"]]), 1, -1)
    pads = [(max(low, 0), max(high, 0)) for low, high in params["padding"]]
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    crops = [slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(
        params["padding"], x.shape[1:-1], strict=True)]  # fmt: skip
    x = x[(slice(None), *crops)]
    rates, strides = params["rhs_dilation"], params["window_strides"]
    sizes = [
        (n - (k - 1) * rate - 1) // stride + 1
        for n, k, rate, stride in zip(
            x.shape[1:-1], kernel.shape[2:], rates, strides, strict=True
        )
    ]
    outs, ins = kernel.shape[:2]
    x = x.reshape(*x.shape[:-1], groups, ins)
    weights = kernel.reshape(groups, outs // groups, *kernel.shape[1:])
    weights = np.moveaxis(weights, (0, 2, 1), (-3, -2, -1))  # [*spatial, groups, I, O]
    made = np.zeros((x.shape[0], *sizes, groups, outs // groups))
    few = np.prod(kernel.shape[2:]) <= np.prod(sizes)
    steps, spans = (rates, strides) if few else (strides, rates)
    places, lengths = (kernel.shape[2:], sizes) if few else (sizes, kernel.shape[2:])
    for place in np.ndindex(*places):
        starts = [at * step for at, step in zip(place, steps, strict=True)]
        cut = [
            slice(start, start + (size - 1) * span + 1, span)
            for start, size, span in zip(starts, lengths, spans, strict=True)
        ]
        some = x[(slice(None), *cut)]  # [N, *lengths, groups, ins]
        if few:
            made += _grouped(some, weights[place])
        else:
            made[(slice(None), *place)] = _summed(some, weights)
    made = made.reshape(*made.shape[:-2], outs)
    return np.moveaxis(made, -1, 1).transpose(np.argsort(numbers.out_spec))


def _grouped(x: Any, weights: Any) -> Any:
    """`[..., groups, ins]` by `[groups, ins, outs]`."""
    if len(weights) > 1:
        return np.einsum("...gi,gio->...go", x, weights)
    made = matmul(x.reshape(-1, x.shape[-1]), weights[0])
    return made.reshape(*x.shape[:-1], -1)


def _summed(x: Any, weights: Any) -> Any:
    """`[N, *sizes, groups, ins]` by `[*sizes, groups, ins, outs]`, all but N summed."""
    groups, ins, outs = weights.shape[-3:]
    x = np.moveaxis(x, -2, 1).reshape(x.shape[0], groups, -1)
    weights = np.moveaxis(weights, -3, 0).reshape(groups, -1, outs)
    return _grouped(x, weights)


def _spread(x: Any, rates: Any, fill: Any = 0) -> Any:
    """An array with something between its elements."""
    if all(rate == 1 for rate in rates) or not x.size:
        return x
    sizes = [(n - 1) * r + 1 for n, r in zip(x.shape, rates, strict=True)]
    made = np.full(sizes, fill, x.dtype)
    made[tuple(slice(None, None, rate) for rate in rates)] = x
    return made


def _sliced(x: Any, params: dict[str, Any]) -> Any:
    strides = params["strides"] or (1,) * x.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return x[tuple(slice(*bound) for bound in bounds)]


def _broadcast(x: Any, params: dict[str, Any]) -> Any:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), params["shape"])


def _product(x: Any, y: Any, numbers: Any) -> Any:
    (left, right), (shared, also) = numbers
    free = [a for a in range(x.ndim) if a not in {*left, *shared}]
    others = [a for a in range(y.ndim) if a not in {*right, *also}]
    batch = [x.shape[a] for a in shared]
    sizes = [[x.shape[a] for a in free], [y.shape[a] for a in others]]
    summed = int(np.prod([x.shape[a] for a in left], dtype=int))
    one = x.transpose([*shared, *free, *left]).reshape(*batch, -1, summed)
    two = y.transpose([*also, *right, *others]).reshape(*batch, summed, -1)
    return matmul(one, two).reshape([*batch, *sizes[0], *sizes[1]])


def matmul(one: Any, two: Any) -> Any:
    """A product of matrices `[..., M, K]` and `[..., K, N]`, that of few in pieces.

    OpenBLAS has threads for one that is larger than a piece, and these wait for each
    other for 16 ms where something else runs on the machine."""
    (m, k), n = one.shape[-2:], two.shape[-1]
    if not _PIECE < m * k * n <= _MANY:
        return np.matmul(one, two)
    rows, columns = min(m, _SIDE), min(n, _SIDE)
    deep = _PIECE // (rows * columns)
    made = np.zeros((*one.shape[:-1], n), np.result_type(one, two))
    starts = range(0, m, rows), range(0, n, columns), range(0, k, deep)
    for i, j, at in itertools.product(*starts):
        left = one[..., i : i + rows, at : at + deep]
        right = two[..., at : at + deep, j : j + columns]
        made[..., i : i + rows, j : j + columns] += np.matmul(left, right)
    return made
