"""Traced programs compared by value numbers: equal numbers, equal values."""

from typing import Any

import jax
from jax.extend import core
import numpy as np

# What runs its inside as it is: the inside is looked through.
TRANSPARENT = {"jit", "pjit", "closed_call", "core_call"}
# The same, but that it is one of these counts; what passes through stays what it was.
MARKED = {"remat", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call"}
INSIDE = ("jaxpr", "call_jaxpr")
IGNORED = {
    *("name", "inline", "in_shardings", "out_shardings", "donated_invars"),
    *("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd", "out_trees"),
}


def inner_jaxprs(value: Any) -> Any:
    """`value` of a parameter of an equation, with jaxprs as the numbers they have."""
    if isinstance(value, core.ClosedJaxpr):
        return ("jaxpr", *number(value.jaxpr, value.consts))
    if isinstance(value, core.Jaxpr):
        return ("jaxpr", *number(value, ()))
    if isinstance(value, (tuple, list)):
        return tuple(map(inner_jaxprs, value))
    shown = repr(value)
    return type(value).__name__ if " at 0x" in shown or "\n" in shown else shown


def number(jaxpr: Any, consts: Any, given: Any = None) -> tuple[Any, ...]:
    """A number for each output of `jaxpr`, given those of its inputs."""
    if given is None:
        given = [("in", i) for i in range(len(jaxpr.invars))]
    known = dict(zip(jaxpr.invars, given, strict=True))
    for var, const in zip(jaxpr.constvars, consts, strict=False):
        known[var] = ("const", constant(const))

    def read(atom: Any) -> Any:
        if isinstance(atom, core.Literal):
            return ("const", constant(atom.val), str(atom.aval))
        return known.get(atom, ("free", str(atom.aval)))

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        name = eqn.primitive.name
        inside = next((eqn.params[n] for n in INSIDE if n in eqn.params), None)
        if name in TRANSPARENT | MARKED and inside is not None:
            closed = isinstance(inside, core.ClosedJaxpr)
            body, held = (inside.jaxpr, inside.consts) if closed else (inside, ())
            outputs = number(body, held, inputs)
            if name in MARKED:
                outputs = tuple(
                    out if out in inputs else (short((name, out)), 0) for out in outputs
                )
        else:
            params = {k: v for k, v in eqn.params.items() if k not in IGNORED}
            params = {k: inner_jaxprs(v) for k, v in params.items()}
            whole = (name, tuple(params.items()), tuple(inputs))
            outputs = tuple(
                passed(eqn, params, inputs, i) or (short(whole), i)
                for i, _ in enumerate(eqn.outvars)
            )
        known.update(zip(eqn.outvars, outputs, strict=True))
    return tuple(map(read, jaxpr.outvars))


def passed(eqn: Any, params: Any, inputs: list[Any], i: int) -> Any:
    """The number of the input that is handed on as output `i` untouched, if one is."""
    if eqn.primitive.name == "scan":
        consts, carry = counts_of_scan(eqn)
        kind, *place = params["jaxpr"][1 + i]
        if kind != "in":
            return None
        # A carried value is its own, and of what is scanned each slice stays in place.
        is_own = place[0] == consts + i if i < carry else place[0] >= consts + carry
        return inputs[place[0]] if is_own else None
    if eqn.primitive.name == "cond":
        outputs = {branch[1 + i] for branch in params["branches"]}
        kind, *place = outputs.pop() if len(outputs) == 1 else ("",)
        return inputs[1 + place[0]] if kind == "in" else None
    return None


def counts_of_scan(eqn: Any) -> tuple[int, int]:
    """The numbers of the constants and of the carried values of a scan."""
    if "ft_in" in eqn.params:  # from JAX 0.12 on
        consts, carry, _ = eqn.params["ft_in"].unpack()
        return len(consts), len(carry)
    return eqn.params["num_consts"], eqn.params["num_carry"]


def constant(value: Any) -> Any:
    """What determines a constant."""
    if jax.dtypes.issubdtype(getattr(value, "dtype", None), jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, jax.core.Tracer):
        return ("tracer", str(value.aval))
    if hasattr(value, "shape"):
        array = np.asarray(value)
        return str(array.dtype), array.shape, array.tobytes()
    return type(value), value


def short(whole: Any) -> int:
    """A number, so that nothing grows."""
    try:
        return hash(whole)
    except TypeError:
        return hash(repr(whole))
