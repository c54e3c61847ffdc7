"""A traced program as one list of steps: calls are inlined, scans unrolled.

Every value has a number, and a kind: it is a constant, it is made of weights alone, or
it depends on the inputs. A scan over stacked weights and a loop written out become the
same steps, so that what holds for one holds for the other.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

from jax.extend import core as jex

from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge._proof.plain import is_program
from hk_bridge._proof.plain import is_row

CONSTANT, WEIGHT, DATA = range(3)
# How many steps a program may have, all loops unrolled.
MOST_STEPS = 1_000_000
LINEAR = {"dot_general", "conv_general_dilated"}
# Primitives that run one program once, on their operands.
_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
_CALLS |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
_CALLS |= {"custom_lin"}
# Those of them that have a rule of their own for their derivatives.
_RULED = {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}


@dataclasses.dataclass(eq=False)
class Step:
    """One equation.

    Attributes:
      position: how many steps come before.
      name: of its primitive.
      ins: the numbers of the values that it reads.
      outs: the numbers of its results.
      eqn: as JAX has it; the loop, for a step that takes a slice for it.
      params: the parameters of the primitive.
      run: what it does with arrays, NumPy's or JAX's, if it is no primitive.
      scope: the names of the modules that it is in.
    """

    position: int
    name: str
    ins: list[int]
    outs: list[int]
    eqn: Any
    params: dict[str, Any]
    run: Callable[..., Any] | None = None
    scope: str = ""


@dataclasses.dataclass(eq=False)
class Call:
    """A call with a rule of its own for its derivatives.

    Attributes:
      start: the position of the first of its steps.
      end: that after the last of them.
      ins: the numbers of its operands.
      outs: the numbers of its results.
      eqn: as JAX has it.
      program: what is called.
    """

    start: int
    end: int
    ins: list[int]
    outs: list[int]
    eqn: Any
    program: Any


class Flat:
    """A program of weights and inputs.

    Attributes:
      steps: in order.
      calls: the outermost calls with rules for their derivatives, in order.
      avals: the shape and dtype of each value.
      kinds: of each value.
      constants: the values that are known.
      weights: the numbers of the weights.
      inputs: the numbers of the inputs.
      outputs: the numbers of the outputs.
      makers: the step that makes a value, if one does.
      readers: the steps that read each value.
    """

    def __init__(self, program: Any, n_weights: int):
        self.steps: list[Step] = []
        self.calls: list[Call] = []
        self.avals: list[Any] = []
        self.kinds: list[int] = []
        self.constants: dict[int, Any] = {}
        self.makers: list[Step | None] = []
        variables = program.jaxpr.invars
        kinds = [WEIGHT] * n_weights + [DATA] * (len(variables) - n_weights)
        ids = [self._new(v.aval, k) for v, k in zip(variables, kinds, strict=True)]
        self.weights, self.inputs = ids[:n_weights], ids[n_weights:]
        self.outputs = self._read(program.jaxpr, program.consts, ids, "")
        self.readers: list[list[Step]] = [[] for _ in self.avals]
        for step in self.steps:
            for value in dict.fromkeys(step.ins):
                self.readers[value].append(step)

    @functools.cached_property
    def live(self) -> list[Step]:
        """The steps that the outputs need, in order."""
        return self._needed(self.outputs)

    @functools.cached_property
    def alive(self) -> set[int]:
        """The values that the outputs depend on."""
        made = (number for step in self.live for number in step.outs)
        return {*self.inputs, *self.weights, *made}

    @functools.cached_property
    def all_data(self) -> list[Step]:
        """Those, and what makes values that depend on inputs and that nothing reads."""
        data = (n for n, kind in enumerate(self.kinds) if kind == DATA)
        return self._needed([*self.outputs, *data])

    def _needed(self, values: Iterable[int]) -> list[Step]:
        needed, found = set(values), []
        for step in reversed(self.steps):
            if not needed.isdisjoint(step.outs):
                needed.update(step.ins)
                found.append(step)
        return found[::-1]

    @functools.cached_property
    def done(self) -> list[list[int]]:
        """The values that nothing reads after each step, but for the outputs."""
        last: dict[int, int] = {}
        for step in self.steps:
            last |= dict.fromkeys([*step.outs, *step.ins], step.position)
        found: list[list[int]] = [[] for _ in self.steps]
        for value in last.keys() - set(self.outputs):
            found[last[value]].append(value)
        return found

    def size(self, value: int) -> int:
        """How many elements a value has."""
        return int(self.avals[value].size)

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape of a value."""
        return tuple(self.avals[value].shape)

    def is_data(self, value: int) -> bool:
        """Whether a value depends on the inputs."""
        return self.kinds[value] == DATA

    def back(self, value: int, names: Any, most: int = 50) -> int:
        """The value that `value` is, before steps of these names."""
        while most and (step := self.makers[value]) is not None and step.name in names:
            value, most = step.ins[0], most - 1
        return value

    def _new(self, aval: Any, kind: int, maker: Step | None = None) -> int:
        self.avals.append(aval)
        self.kinds.append(kind)
        self.makers.append(maker)
        return len(self.avals) - 1

    def _constant(self, value: Any, aval: Any) -> int:
        number = self._new(aval, CONSTANT)
        self.constants[number] = value
        return number

    def _read(
        self, jaxpr: Any, consts: Sequence[Any], ins: Sequence[int], scope: str
    ) -> list[int]:
        known: dict[Any, int] = dict(zip(jaxpr.invars, ins, strict=True))
        for variable, value in zip(jaxpr.constvars, consts, strict=True):
            known[variable] = self._constant(value, variable.aval)

        def of(atom: Any) -> int:
            if isinstance(atom, jex.Literal):
                return self._constant(atom.val, atom.aval)
            return known[atom]

        for eqn in jaxpr.eqns:
            outs = self._equation(eqn, [of(atom) for atom in eqn.invars], scope)
            known |= zip(eqn.outvars, outs, strict=True)
        return [of(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, ins: list[int], scope: str) -> list[int]:
        name = eqn.primitive.name
        inside = str(eqn.source_info.name_stack)
        scope = "/".join(part for part in (scope, inside) if part)
        programs = list(programs_of(eqn.params))
        if name == "scan":
            return self._scan(eqn, programs[0], ins, scope)
        if name in _CALLS and programs:
            body, start = programs[0], (len(self.steps), len(self.avals))
            outs = self._read(opened(body), getattr(body, "consts", ()), ins, scope)
            return self._ruled(eqn, body, start, ins, outs) if name in _RULED else outs
        avals = [variable.aval for variable in eqn.outvars]
        return self._step(name, ins, avals, eqn, dict(eqn.params), None, scope)

    def _ruled(
        self,
        eqn: Any,
        body: Any,
        start: tuple[int, int],
        ins: list[int],
        outs: list[int],
    ) -> list[int]:
        """Notes a call; what it hands on as it is becomes a value of its own."""
        own: list[int] = []
        for number, variable in zip(outs, eqn.outvars, strict=True):
            if number < start[1] or number in own or self.makers[number] is None:
                copy = lambda x: x
                made = self._step("copy", [number], [variable.aval], eqn, {}, copy, "")
                number = made[0]
            own.append(number)
        inside = [call for call in self.calls if call.start < start[0]]
        self.calls = [*inside, Call(start[0], len(self.steps), ins, own, eqn, body)]
        return own

    def _step(
        self,
        name: str,
        ins: list[int],
        avals: Sequence[Any],
        eqn: Any,
        params: dict[str, Any],
        run: Callable[..., Any] | None,
        scope: str,
    ) -> list[int]:
        if len(self.steps) >= MOST_STEPS:
            raise _errors.too_many_steps(MOST_STEPS)
        step = Step(len(self.steps), name, ins, [], eqn, params, run, scope)
        self.steps.append(step)
        kinds = [self.kinds[value] for value in ins]
        kind = max(kinds, default=CONSTANT)
        if name in LINEAR and CONSTANT in kinds and kind == WEIGHT:
            kind = DATA  # as if the constant were an input: zeros, to start with
        step.outs = [self._new(aval, kind, step) for aval in avals]
        return step.outs

    def _scan(self, eqn: Any, body: Any, ins: list[int], scope: str) -> list[int]:
        consts, carried = _abstract.scanned(eqn.params)
        length, jaxpr = eqn.params["length"], opened(body)
        held, carry, stacks = (
            ins[:consts],
            ins[consts : consts + carried],
            ins[consts + carried :],
        )
        slices = [v.aval for v in jaxpr.invars[consts + carried :]]
        order = range(length)
        rows: dict[int, list[int]] = {}
        for i in reversed(order) if eqn.params["reverse"] else order:
            parts = []
            for stack, aval in zip(stacks, slices, strict=True):
                take = lambda x, i=i: x[i]
                which = {"index": i}
                parts += self._step(
                    "scan_slice", [stack], [aval], eqn, which, take, scope
                )
            outs = self._read(jaxpr, body.consts, [*held, *carry, *parts], scope)
            carry, rows[i] = outs[:carried], outs[carried:]
        stacked = []
        for j, variable in enumerate(eqn.outvars[carried:]):
            parts = [rows[i][j] for i in order]
            run: Callable[..., Any] = lambda *xs: stack_of(xs)
            aval = [variable.aval]
            stacked += self._step("scan_stack", parts, aval, eqn, {}, run, scope)
        return [*carry, *stacked]


def stack_of(parts: Sequence[Any]) -> Any:
    """Arrays one on top of the other, NumPy's or JAX's."""
    first: Any = parts[0]
    xp = first.__array_namespace__()
    return xp.stack(parts)


def programs_of(params: dict[str, Any]) -> Iterator[Any]:
    """The programs among the parameters of a primitive."""
    for param in params.values():
        yield from (p for p in (param if is_row(param) else [param]) if is_program(p))


def opened(program: Any) -> Any:
    """A program without its constants."""
    return getattr(program, "jaxpr", program)
