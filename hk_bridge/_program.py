"""Whether two traced programs compute the same, and where they first part.

Each value gets a number by what it is made of: the primitive, its parameters and the
numbers of its operands, down to the inputs and the constants. Two programs with equal
numbers for their outputs compute the same for all inputs, whatever the order of their
equations and whatever in them is not used. (Value numbering: Cocke and Schwartz,
Programming Languages and Their Compilers, 1970.)
"""

import collections
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import dataclasses
import enum
import functools
import types
from typing import Any

import jax
from jax.extend import core as jex
from jax.extend import source_info_util
import jax.numpy as jnp
import numpy as np

# Parameters of a primitive that do not change what it computes: the name of a jitted
# function, whose primitive is called pjit up to JAX 0.8.
_LABELS = {("jit", "name"), ("pjit", "name")}
# What of the context in which an equation was traced changes what it computes.
_CONTEXT = ("compute_type", "threefry_partitionable", "xla_metadata")
# Above this, a constant is told by its dtype and shape in messages.
_SHOWN = 4


def difference(
    ours: jex.ClosedJaxpr,
    theirs: jex.ClosedJaxpr,
    *,
    outputs: Callable[[int], str] = "output {}".format,
    transparent: Collection[str] = (),
) -> str | None:
    """How two programs differ, in words, or None if they compute the same.

    Args:
      ours: the program of the bridged module.
      theirs: the native one, of the same inputs, in the same order.
      outputs: what an output is called, by its position.
      transparent: primitives that count as the equations inside of them, by name.

    >>> import jax.numpy as jnp
    >>> one = jax.make_jaxpr(lambda x: x + jnp.sin(2.0 * x))(1.0)
    >>> two = jax.make_jaxpr(lambda x: jnp.sin(2.0 * x) + x)(1.0)
    >>> difference(one, one)
    >>> print(difference(one, two).split(", at")[0])
    add: operand 0 is input 0 in Haiku, the result of sin in Flax
    """
    if ours.in_avals != theirs.in_avals:
        return f"the inputs are {ours.in_avals} in Haiku, {theirs.in_avals} in Flax"
    table = _Table(frozenset(transparent))
    one, two = table.read(ours), table.read(theirs)
    if one.key == two.key and one.live() == two.live():
        return None
    return _parting(one, two, outputs)


@dataclasses.dataclass(eq=False)
class _Value:
    """One value of a program, by its number.

    Attributes:
      number: equal for equal values, in all programs of one table.
      equation: what gives it; None for inputs and constants.
      text: what it is, in messages.
    """

    number: int
    equation: "_Equation | None"
    text: str


@dataclasses.dataclass(eq=False)
class _Equation:
    """One equation, with its operands.

    Attributes:
      number: equal where the primitive, the parameters and the operands are.
      eqn: as JAX has it.
      params: the parameters, each hashable.
      operands: the values that it reads, and what it comes after if it has effects.
      inner: the programs in its parameters.
    """

    number: int
    eqn: Any
    params: Mapping[str, Hashable]
    operands: "list[_Value]"
    inner: "list[_Read]"


@dataclasses.dataclass(eq=False)
class _Read:
    """A program whose values have numbers.

    Attributes:
      key: equal where the programs compute the same.
      equations: in their order.
      outputs: values.
      effects: the last equation with an effect, if there is one.
    """

    key: Hashable
    equations: list[_Equation]
    outputs: list[_Value]
    effects: _Value | None

    def needed(self) -> Iterator[_Equation]:
        """The equations that the outputs and the effects need, in their order."""
        todo = [*self.outputs, *filter(None, [self.effects])]
        seen: set[int] = set()
        while todo:
            equation = todo.pop().equation
            if equation is not None and id(equation) not in seen:
                seen.add(id(equation))
                todo.extend(equation.operands)
        return (e for e in self.equations if id(e) in seen)

    def live(self) -> collections.Counter[int]:
        """How often each equation is there, of those that are needed."""
        return collections.Counter(equation.number for equation in _all(self))


class _Table:
    """Gives equal numbers to what is equal."""

    def __init__(self, transparent: Collection[str] = ()):
        self._numbers: dict[Hashable, int] = {}
        self._transparent = transparent
        self._read: dict[int, tuple[Any, _Read]] = {}  # the jaxpr keeps its id taken

    def number(self, key: Hashable) -> int:
        """The number of what `key` describes."""
        return self._numbers.setdefault(key, len(self._numbers))

    def read(self, program: Any) -> _Read:
        """Numbers all values of a program, closed or not."""
        if id(program) not in self._read:
            self._read[id(program)] = program, self._fresh(program)
        return self._read[id(program)][1]

    def _fresh(self, program: Any) -> _Read:
        jaxpr = getattr(program, "jaxpr", program)
        inputs = [
            _Value(self.number(("input", i, v.aval)), None, f"input {i}")
            for i, v in enumerate(jaxpr.invars)
        ]
        reader = _Reader(self, self._transparent)
        outputs = reader.read(jaxpr, getattr(program, "consts", ()), inputs)
        effects = reader.effects
        numbers = tuple(value.number for value in outputs)
        avals = tuple(v.aval for v in jaxpr.invars)
        key = ("program", avals, numbers, effects and effects.number)
        return _Read(key, reader.equations, outputs, effects)


class _Reader:
    """Walks through one program, and through what is transparent in it."""

    def __init__(self, table: _Table, transparent: Collection[str]):
        self.table = table
        self.transparent = transparent
        self.equations: list[_Equation] = []
        self.effects: _Value | None = None

    def read(
        self, jaxpr: Any, consts: Iterable[Any], inputs: Iterable[_Value]
    ) -> list[_Value]:
        """The outputs of `jaxpr` for these inputs."""
        avals = (var.aval for var in jaxpr.constvars)
        constants = map(self.constant, consts, avals)
        values = dict(zip(jaxpr.constvars, constants, strict=True))
        values |= zip(jaxpr.invars, inputs, strict=True)

        def value(atom: Any) -> _Value:
            literal = isinstance(atom, jex.Literal)
            return self.constant(atom.val, atom.aval) if literal else values[atom]

        for eqn in jaxpr.eqns:
            operands = [value(atom) for atom in eqn.invars]
            values |= zip(eqn.outvars, self.results(eqn, operands), strict=True)
        return [value(atom) for atom in jaxpr.outvars]

    def results(self, eqn: Any, operands: list[_Value]) -> list[_Value]:
        """The values that an equation gives."""
        name = eqn.primitive.name
        if name in self.transparent:
            (body,) = _programs(eqn.params)
            return self.read(
                getattr(body, "jaxpr", body), getattr(body, "consts", ()), operands
            )
        if eqn.effects and self.effects is not None:
            operands = [*operands, self.effects]
        params = {
            k: _plain(v, self.table)
            for k, v in eqn.params.items()
            if (name, k) not in _LABELS
        }
        avals = tuple(v.aval for v in eqn.outvars)
        context = tuple(_plain(getattr(eqn.ctx, k, None), self.table) for k in _CONTEXT)
        made_of = tuple(value.number for value in operands)
        key = (name, tuple(sorted(params.items())), made_of, avals, context)
        number = self.table.number(key)
        inner = [self.table.read(program) for program in _programs(eqn.params)]
        equation = _Equation(number, eqn, params, operands, inner)
        self.equations.append(equation)
        results = [
            _Value(self.table.number(("result", number, i)), equation, _result(name, i))
            for i in range(len(avals))
        ]
        if eqn.effects:
            after = self.table.number(("after", number))
            self.effects = _Value(after, equation, f"the effect of {name}")
        return results

    def constant(self, value: Any, aval: Any) -> _Value:
        """A constant: the same wherever dtype, shape and bits are."""
        key = ("constant", aval, _plain(value, self.table))
        shown = aval
        if aval.size <= _SHOWN and isinstance(aval.dtype, np.dtype):
            shown = np.asarray(value, aval.dtype)[()]
        return _Value(self.table.number(key), None, f"the constant {shown!s}")


def _result(name: str, position: int) -> str:
    return f"result {position} of {name}" if position else f"the result of {name}"


def _programs(params: Mapping[str, Any]) -> list[Any]:
    """The programs among the parameters of a primitive."""
    values = (v for p in params.values() for v in (p if _is_row(p) else [p]))
    return [v for v in values if isinstance(v, (jex.Jaxpr, jex.ClosedJaxpr))]


def _is_row(value: Any) -> bool:
    return isinstance(value, (tuple, list))


# What is told by its own `==`, which looks at all that it is.
_ATOMS = (
    *(bool, int, complex, str, bytes, type, types.NoneType, enum.Enum, np.dtype),
    *(jax.tree_util.PyTreeDef, jax.sharding.PartitionSpec, jax.sharding.Sharding),
    *(jax.sharding.Mesh, jax.sharding.AbstractMesh, jax.core.ShapedArray),
    *(types.BuiltinFunctionType, types.CodeType),
)


def _plain(value: Any, table: _Table) -> Hashable:
    """A parameter of a primitive as something that can be hashed and compared."""
    plain = functools.partial(_plain, table=table)
    if isinstance(value, float):
        return "float", value.hex()  # 0.0 == -0.0
    if isinstance(value, _ATOMS):
        return type(value).__name__, value
    if isinstance(value, (jex.Jaxpr, jex.ClosedJaxpr)):
        return table.read(value).key
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _bits(value)
    if _is_row(value):
        return type(value).__name__, tuple(map(plain, value))
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, frozenset(map(plain, value))
    if isinstance(value, Mapping):
        items = ((plain(k), plain(v)) for k, v in value.items())
        return type(value).__name__, frozenset(items)
    if isinstance(value, functools.partial):
        return "partial", plain([value.func, value.args, value.keywords])
    if isinstance(value, types.FunctionType):
        return _function(value, table)
    if dataclasses.is_dataclass(value):
        fields = [getattr(value, f.name, None) for f in dataclasses.fields(value)]
        return type(value).__name__, plain(fields)
    # A rule of differentiation, say. What it does is seen in the gradient's program.
    return type(value).__name__, getattr(value, "__qualname__", None)


def _bits(value: Any) -> Hashable:
    is_jax = isinstance(value, jax.Array)
    if is_jax and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        return str(value.dtype), _bits(jax.random.key_data(value))
    array = np.asarray(value)
    return array.dtype.name, array.shape, array.tobytes()


def _function(function: types.FunctionType, table: _Table) -> Hashable:
    """A function by its code, and by what it closes over that is plain."""
    inside: list[Hashable] = []
    for cell in function.__closure__ or ():
        held = cell.cell_contents
        rows = held if _is_row(held) else [held]
        plain = all(isinstance(item, (float, *_ATOMS)) for item in rows)
        inside.append(_plain(held, table) if plain else type(held).__name__)
    return "function", function.__qualname__, function.__code__, tuple(inside)


# Where two programs part, in words.


def _parting(ours: _Read, theirs: _Read, outputs: Callable[[int], str]) -> str:
    """Which equation differs first, or else which output, or what is done twice."""
    one, two = (_unknown(*sides) for sides in ((ours, theirs), (theirs, ours)))
    if one is not None and two is not None:
        return _compared(one, two)
    for equation, here, there in ((one, "Haiku", "Flax"), (two, "Flax", "Haiku")):
        if equation is not None:
            return f"{_described(equation)} is in {here} alone, not in {there}"
    if len(ours.outputs) != len(theirs.outputs):
        counts = (len(ours.outputs), len(theirs.outputs))
        return f"there are {counts[0]} outputs in Haiku, {counts[1]} in Flax"
    for i, pair in enumerate(zip(ours.outputs, theirs.outputs, strict=True)):
        if pair[0].number != pair[1].number:
            return f"{outputs(i)} is {pair[0].text} in Haiku, {pair[1].text} in Flax"
    return _repeated(ours, theirs)


def _unknown(here: _Read, there: _Read) -> _Equation | None:
    """The first equation needed here that is not there."""
    known = {equation.number for equation in there.needed()}
    return next((e for e in here.needed() if e.number not in known), None)


def _compared(ours: _Equation, theirs: _Equation) -> str:
    """What is different between two equations."""
    names = [equation.eqn.primitive.name for equation in (ours, theirs)]
    places = f", at {_place(ours)} in Haiku, {_place(theirs)} in Flax"
    if names[0] != names[1]:
        return f"{_described(ours)} in Haiku, {_described(theirs)} in Flax"
    if len(ours.inner) == len(theirs.inner):
        for one, two in zip(ours.inner, theirs.inner, strict=True):
            if one.key != two.key:
                return f"in {names[0]}: {_parting(one, two, 'output {}'.format)}"
    for key in {**ours.params, **theirs.params}:
        if ours.params.get(key) != theirs.params.get(key):
            texts = [e.eqn.params.get(key) for e in (ours, theirs)]
            said = f"{key} is {texts[0]} in Haiku, {texts[1]} in Flax"
            return f"{names[0]}: {said}{places}"
    for i, pair in enumerate(zip(ours.operands, theirs.operands, strict=False)):
        if pair[0].number != pair[1].number:
            texts = [value.text for value in pair]
            said = f"operand {i} is {texts[0]} in Haiku, {texts[1]} in Flax"
            return f"{names[0]}: {said}{places}"
    return f"{_described(ours)} in Haiku, {_described(theirs)} in Flax"


def _repeated(ours: _Read, theirs: _Read) -> str:
    """Which equation one side has more often, its results being the same."""
    counts = (ours.live(), theirs.live())
    for equation in _all(ours):
        times = [count[equation.number] for count in counts]
        if times[0] != times[1]:
            said = f"{times[0]} times in Haiku, {times[1]} in Flax"
            return f"{_described(equation)} is done {said}"
    raise AssertionError("Equal numbers of equal results, as often, are no difference.")


def _all(program: _Read) -> Iterator[_Equation]:
    """The equations that are needed, and those inside of them."""
    for equation in program.needed():
        yield equation
        for inner in equation.inner:
            yield from _all(inner)


def _described(equation: _Equation) -> str:
    """An equation with the kinds of its values and where it was written."""
    eqn = equation.eqn
    kinds = [", ".join(str(v.aval) for v in vs) for vs in (eqn.invars, eqn.outvars)]
    return f"{eqn.primitive.name}({kinds[0]}) -> {kinds[1]} at {_place(equation)}"


def _place(equation: _Equation) -> str:
    return source_info_util.summarize(equation.eqn.source_info)
