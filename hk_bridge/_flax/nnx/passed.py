"""Whether a value only passed through calls: `jax.jit`, `jax.checkpoint`, loops.

NNX hands every Variable into its transforms and takes it back, written or not; what
comes back is another tracer. The equation that it comes from tells.

Private in JAX (since 0.8.2), and used here since there is no public way: the `parent`
of a tracer that is being staged, with `in_tracers`, `outvars`, `primitive` and
`params`; `primal` and `tangent` of one that is being differentiated, `val` and
`batch_dim` of one that is being mapped. Without them nobody knows, which `is_passed`
says.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import _abstract

# Equations whose inputs and outputs are, one by one, those of the jaxpr that they hold.
_CALLS = frozenset([
    *("jit", "pjit", "checkpoint", "remat2", "closed_call", "core_call"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
])  # fmt: skip
_JAXPRS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def is_passed(after: Any, before: Any) -> bool | None:
    """Whether `after` is `before`, through whatever calls it went; None: who knows?

    Both are the values of one Variable, trees as a rule of one array."""
    if after is before:
        return True
    old, new = jax.tree.leaves(before), jax.tree.leaves(after)
    structures: list[Any] = [jax.tree.structure(tree) for tree in (before, after)]
    if structures[0] != structures[1]:
        return False
    answers = [_is_same(n, o) for n, o in zip(new, old, strict=True)]
    if all(answers):
        return True
    return False if any(answer is False for answer in answers) else None


def _is_same(after: Any, before: Any) -> bool | None:
    if _has(after, "primal", "tangent"):
        pair = _has(before, "primal", "tangent")
        same = _is_same(after.primal, before.primal if pair else before)
        tangent = pair and _is_same(after.tangent, before.tangent)
        return same if same is False or tangent else None
    if _has(after, "val", "batch_dim"):
        if not _has(before, "val", "batch_dim") or after.batch_dim != before.batch_dim:
            return None
        return _is_same(after.val, before.val)
    value, axes = after, list(range(np.ndim(after)))
    while value is not before:
        if not isinstance(value, jax.core.Tracer):
            return _is_equal(value, before)
        if not (hasattr(value, "parent") and hasattr(value, "get_const")):
            return None
        equation = value.parent
        if equation is not None and equation.primitive.name == "transpose":
            order = equation.params["permutation"]  # a scan over another axis
            value, axes = equation.in_tracers[0], [order[axis] for axis in axes]
            continue
        source = _source(value)
        if source is None:
            same = _is_equal(value.get_const(), before)
            return same or (None if _are_loops_of_python() else False)
        value = source
    return axes == sorted(axes)


def _are_loops_of_python() -> bool:
    """Whether JAX runs scans as loops, which take stacks apart and put them together.

    Tables of Haiku ask for that."""
    config: Any = jax.config
    return bool(config.jax_disable_jit)


def _has(value: Any, *attributes: str) -> bool:
    """Whether a tracer has these attributes."""
    is_tracer = isinstance(value, jax.core.Tracer)
    return is_tracer and all(hasattr(value, name) for name in attributes)


def _is_equal(one: Any, two: Any) -> bool:
    """Whether two values that are no tracers have the same bits."""
    if one is two:
        return True
    if isinstance(two, jax.core.Tracer):
        return False
    if not (_abstract.is_array(one) and _abstract.is_array(two)):
        return False
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    if jnp.issubdtype(one.dtype, jax.dtypes.prng_key):
        one, two = map(jax.random.key_data, (one, two))
    return np.asarray(one).tobytes() == np.asarray(two).tobytes()


def _source(tracer: Any) -> Any:
    """What was handed into the call that gave `tracer` back unchanged, or None."""
    equation = tracer.parent
    if equation is None:
        return None
    position = next(
        (i for i, var in enumerate(equation.outvars) if var is tracer.val), None
    )
    if position is None:
        return None
    operand = _operand(equation, position)
    return None if operand is None else equation.in_tracers[operand]


def _operand(equation: Any, position: int) -> int | None:
    """Which input of an equation is its output at `position`, or None."""
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        held = next((params[key] for key in _JAXPRS if key in params), None)
        return None if held is None else _input(held, position)
    if name == "scan":
        found = _input(params["jaxpr"], position)
        consts, carries = _abstract.scanned(params)
        if found is not None and found >= consts + carries <= consts + position:
            return found  # a slice of each step, put together again
        return found if found == consts + position else None
    if name == "shard_map":
        found = _input(params["jaxpr"], position)
        is_whole = found is not None and _is_gathered(params, found, position)
        return found if is_whole else None
    if name == "while":
        consts = params["cond_nconsts"] + params["body_nconsts"]
        found = _input(params["body_jaxpr"], position)
        kept = found == params["body_nconsts"] + position
        return consts + position if kept else None
    if name == "cond":
        inputs = {_input(branch, position) for branch in params["branches"]}
        only = inputs.pop() if len(inputs) == 1 else None
        return None if only is None else only + 1  # the first says which branch
    return None


def _is_gathered(params: Any, operand: int, position: int) -> bool:
    """Whether `shard_map` puts an output together as it took the input apart."""
    specs = params.get("in_specs"), params.get("out_specs")
    return None not in specs and bool(specs[0][operand] == specs[1][position])


def _input(held: Any, position: int) -> int | None:
    """Which input of a jaxpr is its output at `position`, or None."""
    jaxpr = getattr(held, "jaxpr", held)
    variable = jaxpr.outvars[position]
    while True:
        for index, var in enumerate(jaxpr.invars):
            if var is variable:
                return index
        found = _made_by(jaxpr, variable)
        operand = None if found is None else _operand(*found)
        if found is None or operand is None:
            return None
        variable = found[0].invars[operand]


def _made_by(jaxpr: Any, variable: Any) -> tuple[Any, int] | None:
    for equation in jaxpr.eqns:
        for position, var in enumerate(equation.outvars):
            if var is variable:
                return equation, position
    return None
