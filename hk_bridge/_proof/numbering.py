"""Value numbers: equal for equal values of traced programs.

Each value gets a number by what it is made of: the primitive, its parameters and the
numbers of its operands, down to the inputs and the constants. Two programs with equal
numbers for their outputs compute the same for all inputs, whatever the order of their
equations and whatever in them is not used. (Value numbering: Cocke and Schwartz,
Programming Languages and Their Compilers, 1970.)
"""

import collections
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
from jax.extend import core as jex
import numpy as np

from hk_bridge._proof import passed
from hk_bridge._proof import plain

# Parameters of a primitive that do not change what it computes: the name of a jitted
# function, whose primitive is called pjit up to JAX 0.8.
_LABELS = {("jit", "name"), ("pjit", "name")}
# What of the context in which an equation was traced changes what it computes.
_CONTEXT = ("compute_type", "threefry_partitionable", "xla_metadata")
# JAX marks collectives by it, which otherwise are as other equations.
_NO_EFFECTS = {"NamedAxisEffect"}


@dataclasses.dataclass(eq=False)
class Value:
    """One value of a program, by its number.

    Attributes:
      number: equal for equal values, in all programs of one table.
      text: what it is, in messages.
      aval: its shape and dtype; None for what an effect leaves behind.
      equation: what gives it; None for inputs and constants.
      constant: what it is, if it is one.
    """

    number: int
    text: str
    aval: Any
    equation: "Equation | None" = None
    constant: Any = None


@dataclasses.dataclass(eq=False)
class Equation:
    """One equation, with its operands.

    Attributes:
      number: equal where the primitive, the parameters and the operands are.
      position: how many equations of the program come before.
      eqn: as JAX has it.
      params: the parameters and the context, as they were given.
      plain: the same, each hashable.
      operands: the values that it reads, and what it comes after if it has effects.
      inner: the programs in its parameters.
    """

    number: int
    position: int
    eqn: Any
    params: Mapping[str, Any]
    plain: Mapping[str, Hashable]
    operands: list[Value]
    inner: "list[Program]"


@dataclasses.dataclass(eq=False)
class Program:
    """A program whose values have numbers.

    Attributes:
      key: equal where the programs compute the same.
      inputs: by shape and dtype.
      entries: the values of the inputs.
      equations: in their order.
      outputs: values.
      effects: the last equation with an effect, if there is one.
    """

    key: Hashable
    inputs: tuple[Any, ...]
    entries: list[Value]
    equations: list[Equation]
    outputs: list[Value]
    effects: Value | None

    @functools.cached_property
    def needed(self) -> list[Equation]:
        """The equations that the outputs and the effects need, in their order."""
        todo = [*self.outputs, *filter(None, [self.effects])]
        seen: set[int] = set()
        while todo:
            equation = todo.pop().equation
            if equation is not None and id(equation) not in seen:
                seen.add(id(equation))
                todo.extend(equation.operands)
        return [e for e in self.equations if id(e) in seen]

    @functools.cached_property
    def counts(self) -> collections.Counter[int]:
        """How often each equation is there, those inside others too."""
        counts = collections.Counter(equation.number for equation in self.needed)
        for equation in self.needed:
            for inner in equation.inner:
                counts.update(inner.counts)
        return counts

    def all(self) -> Iterator[Equation]:
        """The equations that are needed, and those inside of them."""
        for equation in self.needed:
            yield equation
            for inner in equation.inner:
                yield from inner.all()


class Table:
    """Gives equal numbers to what is equal.

    Args:
      transparent: primitives that count as the equations inside of them, by name.
    """

    def __init__(self, transparent: Collection[str] = ()):
        self._numbers: dict[Hashable, int] = {}
        self._transparent = transparent
        self._read: dict[int, tuple[Any, Program]] = {}  # the jaxpr keeps its id taken

    def number(self, key: Hashable) -> int:
        """The number of what `key` describes."""
        return self._numbers.setdefault(key, len(self._numbers))

    def read(self, program: Any) -> Program:
        """Numbers all values of a program, closed or not."""
        if id(program) not in self._read:
            self._read[id(program)] = program, self._fresh(program)
        return self._read[id(program)][1]

    def plain(self, value: Any) -> Hashable:
        """A parameter as something that can be hashed and compared."""
        return plain.plain(value, lambda program: self.read(program).key)

    def _fresh(self, program: Any) -> Program:
        jaxpr = getattr(program, "jaxpr", program)
        consts = getattr(program, "consts", None)
        free = [] if consts is not None else jaxpr.constvars  # whoever runs it has them
        avals = tuple(v.aval for v in (*free, *jaxpr.invars))
        inputs = [
            Value(self.number(("input", i, aval)), f"input {i}", aval)
            for i, aval in enumerate(avals)
        ]
        reader = _Reader(self, self._transparent)
        outputs = reader.read(jaxpr, consts, inputs)
        effects = reader.effects
        numbers = tuple(value.number for value in outputs)
        key = ("program", avals, numbers, effects and effects.number)
        return Program(key, avals, inputs, reader.equations, outputs, effects)


class _Reader:
    """Walks through one program, and through what is transparent in it."""

    def __init__(self, table: Table, transparent: Collection[str]):
        self.table = table
        self.transparent = transparent
        self.equations: list[Equation] = []
        self.effects: Value | None = None

    def read(
        self, jaxpr: Any, consts: Iterable[Any] | None, inputs: list[Value]
    ) -> list[Value]:
        """The outputs of `jaxpr` for these inputs, which come after free constants."""
        avals = (var.aval for var in jaxpr.constvars)
        constants = [] if consts is None else list(map(self.constant, consts, avals))
        variables = [*jaxpr.constvars, *jaxpr.invars]
        values = dict(zip(variables, [*constants, *inputs], strict=True))

        def value(atom: Any) -> Value:
            literal = isinstance(atom, jex.Literal)
            return self.constant(atom.val, atom.aval) if literal else values[atom]

        for eqn in jaxpr.eqns:
            operands = [value(atom) for atom in eqn.invars]
            values |= zip(eqn.outvars, self.results(eqn, operands), strict=True)
        return [value(atom) for atom in jaxpr.outvars]

    def results(self, eqn: Any, operands: list[Value]) -> list[Value]:
        """The values that an equation gives."""
        name = eqn.primitive.name
        if name in self.transparent:
            (body,) = passed.programs(eqn.params)
            jaxpr = getattr(body, "jaxpr", body)
            return self.read(jaxpr, getattr(body, "consts", None), operands)
        effects = {type(effect).__name__ for effect in eqn.effects} - _NO_EFFECTS
        if effects and self.effects is not None:
            operands = [*operands, self.effects]
        params = {k: v for k, v in eqn.params.items() if (name, k) not in _LABELS}
        params |= {f"the context's {k}": getattr(eqn.ctx, k, None) for k in _CONTEXT}
        plain = {k: self.table.plain(v) for k, v in params.items()}
        avals = tuple(v.aval for v in eqn.outvars)
        made_of = tuple(value.number for value in operands)
        key = (name, tuple(sorted(plain.items())), made_of, avals)
        number = self.table.number(key)
        inner = [self.table.read(program) for program in passed.programs(eqn.params)]
        equation = Equation(
            number, len(self.equations), eqn, params, plain, operands, inner
        )
        self.equations.append(equation)
        if effects:
            after = self.table.number(("after", number))
            self.effects = Value(after, f"the effect of {name}", None, equation)
        results = [
            Value(
                self.table.number(("result", number, i)),
                f"result {i} of {name}" if i else f"the result of {name}",
                aval,
                equation,
            )
            for i, aval in enumerate(avals)
        ]
        for i, operand in passed.through(eqn, inner):
            given = operands[operand].aval
            if given == avals[i] or name == "shard_map":  # which names its mesh there
                results[i] = operands[operand]
        return results

    def constant(self, value: Any, aval: Any) -> Value:
        """A constant: the same wherever dtype, shape and bits are."""
        key: Hashable
        if not isinstance(aval, jax.core.ShapedArray):
            key = id(value)  # what can be written to is itself alone
        elif isinstance(value, jax.core.Tracer):
            key = "tracer"  # of a trace around, or one that is over: `nn.custom_vjp`
        else:
            if isinstance(aval.dtype, np.dtype):
                value = np.asarray(value, aval.dtype)
            key = plain.bits(value)
        number = self.table.number(("constant", aval, key))
        return Value(number, "a constant", aval, constant=value)
