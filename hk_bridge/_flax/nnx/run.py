"""Running a method of an NNX module on a copy that has Haiku's values.

The module itself is never run, nor changed: its graph is merged with the values that
the host gives, as `nnx.split` and `nnx.merge` do."""

from collections.abc import Callable
from collections.abc import Mapping
import inspect
import itertools
from typing import Any
from typing import NamedTuple

from flax import errors
import jax
import numpy as np

from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge._flax.host import MISSING
from hk_bridge._flax.host import Host
from hk_bridge._flax.host import Record
from hk_bridge._flax.nnx import graph
from hk_bridge._flax.nnx import inner
from hk_bridge._flax.nnx import late
from hk_bridge._flax.nnx import modules
from hk_bridge._flax.nnx import seen
from hk_bridge._flax.nnx import streams
from hk_bridge._flax.nnx.graph import Kind
from hk_bridge._flax.nnx.passed import is_passed
from hk_bridge._flax.plan import Outcome
from hk_bridge._flax.plan import Plan
from hk_bridge._flax.plan import in_filter
from hk_bridge._layout import PARAMS
from hk_bridge._layout import Where

Variables = dict[str, Any]


class Given(NamedTuple):
    """A leaf with its value in the module, as a recipe for the host."""

    where: Where
    variable: Any
    inside: bool = False  # of no lifted transform

    def draw(self) -> Any:
        value = graph.held(self.variable)
        if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(value)):
            raise _errors.abstract_variable(*self.where)
        return value

    def skip(self) -> None:
        """No key is left out: the value is there."""

    def spec(self, *, open_box: bool = False) -> Any:
        return graph.spec(self.variable)

    def with_shape(self, shape: Any) -> Any:
        return MISSING


def run(
    plan: Plan,
    variables: Variables,
    host: Host,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    begin: Callable[[Variables, Record], None] = lambda variables, record: None,
) -> Outcome:
    """Runs the function of `plan` on `variables`, which change in place.

    Raises:
      ModifyScopeVariableError: it changed what may not change, parameters at apply.
      InvalidRngError: it used a stream that has no key.
    """
    record = Record()
    begin(variables, record)
    found = graph.remembered(plan.module, plan.keep_rngs, plan.memory)
    keys: Any = host.streams
    tags = [streams.tag_of(key.value) for key in found.keys]
    fed = streams.Fed(keys, tags, modules.unused_streams(plan.module, found))
    there = dict(_layout.leaves(variables))
    bound = found.bind(*_values(found, there, variables, host, fed))
    passing = seen.passing(there)
    lost = late.put_back(bound, {w: v for w, v in there.items() if w not in passing})
    if bound.late:
        bound.snapshot.take()
    with (
        seen.watched(bound.module, host, plan.capture),
        seen.sowing(plan, bound, passing) as sown,
        inner.shared(plan, bound.module, host.streams, (args, kwargs)),
    ):
        output = plan.function(bound.module, *args, **kwargs)
    if inspect.isgenerator(output):  # it runs when nobody looks at what it writes
        raise _errors.generator_method(output)
    fed.end()
    _collect(bound, fed, plan, variables, record, host, lost)
    for where, value in sown:
        _layout.place(variables, where, value)
        record.made.add(where)
        record.sown[where.collection] = where.path[:-1]
    if host.reads_late and in_filter(plan.mutable, PARAMS):
        host.read_rest(variables)
    return Outcome(output, variables, record)


def _values(
    found: graph.Graph,
    there: Mapping[Where, Any],
    variables: Variables,
    host: Host,
    fed: streams.Fed,
) -> tuple[list[Any], list[Any]]:
    """The Variables and arrays of the copy, and what these hold."""
    numbers = itertools.count()
    values: list[Any] = []
    held: list[Any] = []
    for leaf in found.leaves:
        value, of = leaf.value, None
        if leaf.kind is Kind.VARIABLE:
            of = _read_only(_value(leaf, there, variables, host))
            value = type(value).from_metadata(of, value.get_metadata())
        elif leaf.kind is Kind.KEY:
            value = fed.key(next(numbers), value)
        elif leaf.kind is Kind.COUNT:
            value = streams.count_like(value)
            of = value.get_raw_value()
        elif isinstance(value, jax.ShapeDtypeStruct):
            raise _errors.abstract_attribute(leaf.path)
        else:
            value = of = _read_only(value)
        values.append(value)
        held.append(of)
    return values, held


def _read_only(value: Any) -> Any:
    """An array of NumPy, which is not copied, so that no call writes into it."""
    if not isinstance(value, np.ndarray):
        return value
    view = value.view()
    view.flags.writeable = False
    return view


def _value(
    leaf: graph.Leaf, held: Mapping[Where, Any], variables: Variables, host: Host
) -> Any:
    """The value of a Variable: what there is, or at init what the module has."""
    where: Any = leaf.where
    value = held.get(where, MISSING)
    if value is MISSING and _layout.is_level(leaf.value.get_raw_value()):
        value = _layout.find(variables, where, MISSING)
    if value is MISSING:
        recipe: Any = Given(where, leaf.value)
        if graph.is_transient(type(leaf.value)) or not host.keeps(where.collection):
            return recipe.draw()
        value = host.leaf(recipe)
        if value is MISSING:
            raise _explained(host, where, _missing)
        _layout.place(variables, where, value)
    if where.collection == PARAMS:
        _check_shape(where, value, leaf.value, host)
    return value


def _explained(host: Host, where: Where, error: Callable[..., Any], *more: Any) -> Any:
    """An error of Flax about a Variable, with the host's notes."""
    *scope, name = where.path
    made = error(where.collection, str(name), "/" + "/".join(map(str, scope)), *more)
    host.explain(made, where)
    return made


def _missing(collection: str, name: str, scope: str) -> Exception:
    known: Any = errors
    error: Exception
    if collection == PARAMS:
        error = known.ScopeParamNotFoundError(name, scope)
    else:
        error = known.ScopeVariableNotFoundError(name, collection, scope)
    return error


def _misshapen(collection: str, name: str, scope: str, *shapes: Any) -> Exception:
    known: Any = errors.ScopeParamShapeError
    error: Exception = known(name, scope, *shapes)
    return error


def _immutable(collection: str, name: str, scope: str) -> Exception:
    known: Any = errors.ModifyScopeVariableError
    error: Exception = known(collection, name, scope)
    return error


def _check_shape(where: Where, value: Any, variable: Any, host: Host) -> None:
    """Refuses a parameter of another shape than the module has, as linen does."""
    own = variable.get_raw_value()
    shapes = [getattr(array, "shape", None) for array in (value, own)]
    if shapes[0] != shapes[1] and None not in shapes:
        raise _explained(host, where, _misshapen, *shapes)


def _collect(
    bound: graph.Bound,
    fed: streams.Fed,
    plan: Plan,
    variables: Variables,
    record: Record,
    host: Host,
    lost: set[Where],
) -> None:
    """Records what the run made and wrote, and has it in `variables`.

    Args:
      lost: what Haiku has, and the copy had not.
    """
    gone = {leaf.where for leaf in bound.graph.kept}
    gone |= {leaf.where for leaf, _ in bound.late.values()}
    numbers = {leaf.path[:-1]: i for i, leaf in enumerate(bound.graph.keys)}
    for leaf, before in bound.leaves():
        if leaf.where is not None:
            gone.discard(leaf.where)
            if before is MISSING and leaf.where in lost:
                raise _errors.made_anew(*leaf.where)
            if leaf.value.get_raw_value() is not before:
                _record(leaf.where, leaf.value, before, plan, variables, record, host)
        elif leaf.kind is Kind.COUNT and leaf.path[:-1] in numbers:
            fed.check(numbers[leaf.path[:-1]], leaf.value, before)
        elif leaf.kind is Kind.ARRAY and _is_changed(leaf.value, before):
            raise _errors.array_attribute_changed(leaf.path)
    for where in gone:
        if where is not None:
            _layout.remove(variables, where)
            record.wrote.add(where)


def _is_changed(after: Any, before: Any) -> bool:
    return before is not MISSING and is_passed(after, before) is False


def _record(
    where: Where,
    variable: Any,
    before: Any,
    plan: Plan,
    variables: Variables,
    record: Record,
    host: Host,
) -> None:
    """Records whether a Variable is new, or was written."""
    value = variable.get_raw_value()
    passed = False if before is MISSING else is_passed(value, before)
    sown = graph.is_transient(type(variable)) or not host.keeps(where.collection)
    may_change = sown or in_filter(plan.mutable, where.collection)
    if passed or (passed is None and (where.collection == PARAMS or not may_change)):
        return
    if not may_change:
        raise _explained(host, where, _immutable)
    _layout.place(variables, where, value)
    if sown:
        record.sown[where.collection] = where.path[:-1]
    happened = record.made if sown or before is MISSING else record.wrote
    happened.update(_layout.below(where, value))
