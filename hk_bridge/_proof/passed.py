"""Which results of an equation are operands that merely pass through it."""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from hk_bridge import _abstract
from hk_bridge._proof import plain

# Primitives that run one program once, on their operands.
_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
_CALLS |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


def through(eqn: Any, inner: list[Any]) -> Iterator[tuple[int, int]]:
    """Which results are operands that merely pass through, `(result, operand)`.

    That is what an inner program gives back untouched: a call, each branch of a choice,
    or a loop in what it carries, and a scan in what it reads and stacks again."""
    name, params = eqn.primitive.name, eqn.params
    if name == "cond":
        yield from _given_back_by_all(inner)
    if name == "while":
        yield from _carried(eqn, inner)
    if not inner or name not in {*_CALLS, "scan", "shard_map"}:
        return
    body = inner[0]
    if len(body.entries) != len(eqn.invars) or len(body.outputs) != len(eqn.outvars):
        return
    entries = {id(value): i for i, value in enumerate(body.entries)}
    consts, carried = _abstract.scanned(params) if name == "scan" else (0, 0)
    for i, output in enumerate(body.outputs):
        entry = entries.get(id(output))
        if entry is None:
            continue
        carry, stack = i < carried, entry >= consts + carried
        if name == "shard_map" and params["in_specs"][entry] != params["out_specs"][i]:
            continue
        if name != "scan" or (entry == consts + i if carry else stack):
            yield i, entry


def _given_back_by_all(branches: list[Any]) -> Iterator[tuple[int, int]]:
    """The same of a choice, whose first operand says which branch."""
    entries = [{id(v): i for i, v in enumerate(b.entries)} for b in branches]
    for i, outputs in enumerate(zip(*(b.outputs for b in branches), strict=True)):
        pairs = zip(entries, outputs, strict=True)
        places = {known.get(id(output)) for known, output in pairs}
        if len(places) == 1 and (place := places.pop()) is not None:
            yield i, 1 + place


def _carried(eqn: Any, inner: list[Any]) -> Iterator[tuple[int, int]]:
    """The same of a loop, which hands constants to its condition and to its body."""
    ids = [id(program) for program in programs(eqn.params)]
    body = inner[ids.index(id(eqn.params["body_jaxpr"]))]
    before = eqn.params["cond_nconsts"]
    for i, output in enumerate(body.outputs):
        entry = eqn.params["body_nconsts"] + i
        if output is body.entries[entry]:
            yield i, before + entry


def programs(params: Mapping[str, Any]) -> list[Any]:
    """The programs among the parameters of a primitive."""
    rows = (p if plain.is_row(p) else [p] for p in params.values())
    return [v for row in rows for v in row if plain.is_program(v)]
