"""Common primitives in NumPy, which compiles nothing: a network has many shapes."""

from collections.abc import Callable
from typing import Any

import numpy as np

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


def quick(name: str, params: dict[str, Any], values: list[Any]) -> Any:
    """The result of a primitive, or None if it is none of these."""
    if any(not isinstance(value, (np.ndarray, np.generic)) for value in values):
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
    if name == "select_n" and values[0].dtype == bool and len(values) == 3:
        return np.where(values[0], values[2], values[1])
    if name == "dot_general" and floats:
        return _product(values[0], values[1], params["dimension_numbers"])
    if name == "conv_general_dilated" and floats:
        return _convolution(values[0], values[1], params)
    return None


def _convolution(x: Any, kernel: Any, params: dict[str, Any]) -> Any:
    """A convolution as a product for each place in the kernel; None if it has groups
    of batches."""
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if params["batch_group_count"] != 1:
        return None
    x = x.transpose(numbers.lhs_spec)  # [N, C, *spatial]
    kernel = kernel.transpose(numbers.rhs_spec)  # [O, C / groups, *spatial]
    x = np.moveaxis(_spread(x, params["lhs_dilation"]), 1, -1)
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
    made = np.zeros((x.shape[0], *sizes, groups, outs // groups))
    x = x.reshape(*x.shape[:-1], groups, ins)
    for place in np.ndindex(*kernel.shape[2:]):
        starts = [at * rate for at, rate in zip(place, rates, strict=True)]
        cut = [
            slice(start, start + (size - 1) * stride + 1, stride)
            for start, size, stride in zip(starts, sizes, strides, strict=True)
        ]
        part = kernel[(slice(None), slice(None), *place)]
        weights = part.reshape(groups, outs // groups, ins).transpose(0, 2, 1)
        some = x[(slice(None), *cut)][..., None, :]
        made += np.matmul(some, weights)[..., 0, :] if groups > 1 else np.matmul(
            some[..., 0, 0, :], weights[0]
        )[..., None, :]  # fmt: skip
    made = made.reshape(*made.shape[:-2], outs)
    return np.moveaxis(made, -1, 1).transpose(np.argsort(numbers.out_spec))


def _spread(x: Any, rates: Any) -> Any:
    """An array with zeros between its elements."""
    if all(rate == 1 for rate in rates):
        return x
    sizes = [(n - 1) * r + 1 for n, r in zip(x.shape[2:], rates, strict=True)]
    made = np.zeros((*x.shape[:2], *sizes), x.dtype)
    made[(slice(None), slice(None), *(slice(None, None, r) for r in rates))] = x
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
    return np.matmul(one, two).reshape([*batch, *sizes[0], *sizes[1]])
