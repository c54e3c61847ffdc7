"""Where on the devices each leaf of a checkpoint goes."""

from typing import Any

import jax

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge.migrate._format import where_is


def sharding_of(shardings: Any, path: _layout.Path, leaf: Any) -> Any:
    for part in path:
        if _layout.is_level(shardings):
            shardings = shardings.get(part)
    if not isinstance(shardings, jax.sharding.Sharding):
        raise _no_sharding(path, shardings)
    check_bits(path, leaf.dtype)
    array = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    try:
        jax.eval_shape(lambda x: jax.device_put(x, shardings), array)
    except ValueError as error:
        raise _does_not_split(path, shardings, array.shape) from error
    return shardings


def check_bits(path: _layout.Path, dtype: Any) -> None:
    """Refuses a dtype that JAX would cut."""
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise _loses_bits(path, dtype)


def _no_sharding(path: _layout.Path, given: Any) -> _errors.VariablesError:
    return _errors.VariablesError(
        f"shardings= has {given!r} for {where_is(path)}, where a jax.sharding.Sharding "
        "was expected. Give one for each leaf of the checkpoint, or one for all."
    )


def _does_not_split(
    path: _layout.Path, given: jax.sharding.Sharding, shape: tuple[int, ...]
) -> _errors.VariablesError:
    return _errors.VariablesError(
        f"shardings= has {given!r} for {where_is(path)}, which cannot split an array "
        f"of shape {shape}. Give one that names no more axes than the array has, "
        "and splits each into equal parts: jax.P(), say, splits none."
    )


def _loses_bits(path: _layout.Path, dtype: Any) -> _errors.VariablesError:
    return _errors.VariablesError(
        f"{where_is(path)} is a {dtype} array, which JAX would cut to 32 bits. Write "
        'jax.config.update("jax_enable_x64", True), or leave shardings= out.'
    )
