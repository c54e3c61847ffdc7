"""Steps run one by one, as they are or in float64, whatever floats the program has.

In float64 rounding does not hide what differs: an epsilon of 1e-5 for 1e-6 moves a
value by more than the arithmetic ever does, and another order of a sum moves nothing.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.flat import Step
from hk_bridge.migrate._matching.flat import programs_of
from hk_bridge.migrate._matching.quick import quick

LOOPS = {"while", "cond"}
# What reads or makes the bits of floats: only right in the width it was written for.
_OF_BITS = {"bitcast_convert_type", "nextafter", "reduce_precision"}
_TO_64: dict[Any, Any] = {
    jnp.dtype(d): np.dtype("float64") for d in ("float16", "bfloat16", "float32")
}
_TO_64[np.dtype("complex64")] = np.dtype("complex128")


def widened(value: Any) -> Any:
    """An array in float64 or complex128, if it is one of floats.

    >>> widened(np.float32(0.5)).dtype, widened(np.int32(1)).dtype
    (dtype('float64'), dtype('int32'))
    """
    if not isinstance(value, (np.ndarray, np.generic, jax.Array)):
        value = np.asarray(value, getattr(value, "dtype", None))
    if not isinstance(value.dtype, np.dtype):
        return value  # keys
    wide = _TO_64.get(value.dtype, value.dtype)
    return np.asarray(value).astype(wide, copy=False)


def run(
    step: Step, values: Sequence[Any], avals: Sequence[Any], wide: bool = True
) -> list[Any]:
    """The results of a step; in float64 to be called under `jax.enable_x64(True)`.

    Args:
      values: its operands.
      avals: the shapes and dtypes that the operands have in the program.
      wide: whether in float64, or with the dtypes that the program has.
    """
    if step.run is not None:
        return [step.run(*values)]
    if wide and step.name == "reduce_precision":
        return [values[0]]
    if wide and step.name == "convert_element_type":
        new = _wide(step.params["new_dtype"])
        plain = isinstance(values[0], np.ndarray) and values[0].dtype.kind in "fiub"
        if plain and isinstance(new, np.dtype):
            return [values[0].astype(new, copy=False)]
    with np.errstate(all="ignore"):
        known = quick(step.name, step.params, list(values), exact=not wide)
    if known is not None:
        some = known if isinstance(known, tuple) else (np.asarray(known),)
        return [widened(result) if wide else result for result in some]
    if wide and step.name in LOOPS:
        return _loop(step, values)
    bind, given, params = step.eqn.primitive.bind, values, step.params
    if wide and step.name not in _OF_BITS and not any(programs_of(params)):
        params = {k: _wide(v) for k, v in params.items()}
    elif wide:
        given = [_narrowed(v, aval) for v, aval in zip(values, avals, strict=True)]
    made = bind(*given, **params)
    results = made if step.eqn.primitive.multiple_results else [made]
    return [_held(widened(result) if wide else result) for result in results]


def _held(result: Any) -> Any:
    """A result of JAX as an array of NumPy; keys stay."""
    return np.asarray(result) if isinstance(result.dtype, np.dtype) else result


def _wide(param: Any) -> Any:
    """A parameter of a primitive; a dtype is widened."""
    if isinstance(param, np.dtype):
        return _TO_64.get(param, param)
    if isinstance(param, type) and issubclass(param, np.generic):
        return _TO_64.get(np.dtype(param), np.dtype(param))
    return param


def _narrowed(value: Any, aval: Any) -> Any:
    """An array in the width that the program has it in."""
    value = jnp.asarray(value)
    wide = value.dtype in (np.dtype("float64"), np.dtype("complex128"))
    return value.astype(aval.dtype) if wide and value.dtype != aval.dtype else value


def _loop(step: Step, values: Sequence[Any]) -> list[Any]:
    params = step.params
    if step.name == "cond":
        branches = params["branches"]
        index = min(max(int(values[0]), 0), len(branches) - 1)
        return program(branches[index])(values[1:])
    ends, bodies = params["cond_nconsts"], params["body_nconsts"]
    test, body = program(params["cond_jaxpr"]), program(params["body_jaxpr"])
    fixed, held = list(values[:ends]), list(values[ends : ends + bodies])
    carry = list(values[ends + bodies :])
    while bool(test([*fixed, *carry])[0]):
        carry = body([*held, *carry])
    return carry


def program(closed: Any) -> Callable[[Sequence[Any]], list[Any]]:
    """A traced program as a function of its inputs, in float64."""
    flat = Flat(closed, 0)

    def call(values: Sequence[Any]) -> list[Any]:
        return run_all(flat, dict(zip(flat.inputs, values, strict=True)))

    return call


def run_all(
    flat: Flat,
    given: Mapping[int, Any],
    keep: Callable[[int, Any], None] = lambda number, value: None,
    *,
    steps: Sequence[Step] | None = None,
    wide: bool = True,
) -> list[Any]:
    """The outputs of a program.

    A value is dropped after the last step that reads it.

    Args:
      given: the weights and inputs, by their numbers.
      keep: gets each value on the way, with its number.
      steps: which to run; by default those that the outputs need.
      wide: whether in float64, or with the dtypes that the program has.
    """
    env = {**flat.constants, **given}
    with jax.enable_x64(True) if wide else contextlib.nullcontext():
        for number in given:
            keep(number, env[number])
        for step in flat.live if steps is None else steps:
            avals = [flat.avals[value] for value in step.ins]
            pairs = zip(step.ins, avals, strict=True)
            operands = [_operand(env[value], aval, wide) for value, aval in pairs]
            made = run(step, operands, avals, wide)
            for number, value in zip(step.outs, made, strict=True):
                env[number] = value
                keep(number, value)
            for number in flat.done[step.position]:
                env.pop(number, None)
    return [_operand(env[value], flat.avals[value], wide) for value in flat.outputs]


def _operand(value: Any, aval: Any, wide: bool) -> Any:
    """A value as a step is to read it: weights are widened no earlier."""
    if wide or not isinstance(aval.dtype, np.dtype):
        return widened(value)
    return np.asarray(value, aval.dtype)
