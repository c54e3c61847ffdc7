"""What two layers of Haiku compute in other ways, by what their constructors kept."""

from collections.abc import Iterator
from typing import Any

from hk_bridge import _haiku
from hk_bridge.migrate._recorded import Layer
from hk_bridge.migrate._twins.layers import Twin

_hk = _haiku.native

# What is no difference, or is told by `channel_index` and `dimension_numbers`.
_SKIPPED = ("name", "module_name", "data_format")


def differences(made: Twin, native: Layer) -> str:
    """The numbers and switches of Haiku's layer that are not as its twin's."""
    cls, twins = type(native.module), list[Any]()
    found = [
        f"{cls.__name__} has a {name} of its own"
        for name, value in vars(made.layer).items()
        if _is_of_calls(name, value) and getattr(cls, name) is not value
    ]
    _hk.transform(lambda: twins.append(made.make())).init(None)
    found += _unequal(native.built, vars(twins[0]), native.ndim or 0)
    return "; ".join(found)


def _is_of_calls(name: str, value: Any) -> bool:
    return callable(value) and (name == "__call__" or not name.startswith("__"))


def _unequal(
    one: dict[str, Any], two: dict[str, Any], ndim: int, prefix: str = ""
) -> Iterator[str]:
    for name, value in two.items():
        own = one.get(name)
        if name.startswith("_") or name.endswith("_init") or name in _SKIPPED:
            continue
        if isinstance(value, _hk.Module):
            yield from _unequal(vars(own), vars(value), ndim, f"{prefix}{name}.")
            continue
        values = [_meaning(side, name, ndim) for side in (one, two)]
        if all(map(_is_plain, values)) and values[0] != values[1]:
            yield f"{prefix}{name}={own} in Haiku, {value} in Flax"


def _meaning(layer: dict[str, Any], name: str, ndim: int) -> Any:
    """An attribute, so that equal ones do the same for an input of `ndim` axes."""
    value: Any = layer.get(name)
    if name in ("axis", "param_axis") and ndim:
        value = slice(ndim - 1) if value is None else value
        if isinstance(value, slice):
            value = range(ndim)[value]
        axes = [value] if isinstance(value, int) else value
        return sorted(axis % ndim for axis in axes)
    if name == "channel_index" and ndim and value is not None:
        return value % ndim
    if name == "padding" and isinstance(value, str):
        return value if any(n > 1 for n in layer["kernel_shape"]) else "none"
    return list(value) if isinstance(value, (list, tuple)) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
