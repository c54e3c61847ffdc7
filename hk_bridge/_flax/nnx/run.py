"""Running a method of an NNX module on a copy that has Haiku's values.

The module itself is never run, nor changed: its graph is merged with the values that
the host gives, as `nnx.split` and `nnx.merge` do."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from flax import errors
from flax import nnx
import jax
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge._flax.host import MISSING
from hk_bridge._flax.host import Host
from hk_bridge._flax.host import Record
from hk_bridge._flax.nnx import graph
from hk_bridge._flax.nnx import seen
from hk_bridge._flax.nnx import streams
from hk_bridge._flax.nnx.passed import is_passed
from hk_bridge._flax.plan import Outcome
from hk_bridge._flax.plan import Plan
from hk_bridge._flax.plan import in_filter
from hk_bridge._layout import PARAMS
from hk_bridge._layout import Where
from hk_bridge._layout import names

Variables = dict[str, Any]


class Given(NamedTuple):
    """A leaf with its value in the module, as a recipe for the host."""

    where: Where
    variable: Any
    inside: bool = False  # of no lifted transform

    def draw(self) -> Any:
        value = self.variable.get_raw_value()
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
    found = graph.Graph(plan.module, plan.keep_rngs)
    keys: Any = host.streams
    fed = streams.Fed(keys, [streams.tag_of(key.value) for key in found.keys])
    bound = found.bind(_values(found, variables, host, fed))
    _set_rest(bound.module, found, variables)
    bound.begin()
    with seen.watched(bound.module, host, plan.capture):
        output, sown = seen.captured(plan, bound, args, kwargs)
    _collect(bound, fed, plan, variables, record, host)
    for where, value in sown:
        _layout.place(variables, where, value)
        record.made.add(where)
        record.sown[where.collection] = where.path[:-1]
    if host.reads_late and in_filter(plan.mutable, PARAMS):
        host.read_rest(variables)
    return Outcome(output, variables, record)


def _values(
    found: graph.Graph, variables: Variables, host: Host, fed: streams.Fed
) -> list[Any]:
    """What the copy has for the leaves of the graph, Variables among them."""
    index = {leaf.path: i for i, leaf in enumerate(found.keys)}
    values: list[Any] = []
    for leaf in found.leaves:
        if leaf.path in index:
            shape = np.shape(leaf.value.get_raw_value())
            values.append(fed.key(index[leaf.path], leaf.value, shape))
        elif leaf.is_stream:
            shape = np.shape(leaf.value.get_raw_value())
            values.append(_with(leaf.value, streams.zeros(shape)))
        elif leaf.where is None:
            values.append(_array(leaf))
        else:
            values.append(_with(leaf.value, _value(leaf, variables, host)))
    return values


def _with(variable: Any, value: Any) -> Any:
    """A new Variable like `variable`, of another value."""
    return type(variable).from_metadata(value, variable.get_metadata())


def _array(leaf: graph.Leaf) -> Any:
    if isinstance(leaf.value, jax.ShapeDtypeStruct):
        raise _errors.abstract_attribute(leaf.path)
    return leaf.value


def _value(leaf: graph.Leaf, variables: Variables, host: Host) -> Any:
    """The value of a Variable: what there is, or at init what the module has."""
    where: Any = leaf.where
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
    are_arrays = _abstract.is_array(value) and _abstract.is_array(own)
    if are_arrays and tuple(value.shape) != tuple(own.shape):
        raise _explained(host, where, _misshapen, value.shape, own.shape)


def _set_rest(module: Any, found: graph.Graph, variables: Variables) -> None:
    """Gives the copy the Variables that a call made at init, a cache say."""
    there = {leaf.where for leaf in found.kept}
    if len(there) == sum(1 for _ in _layout.leaves(variables)):
        return
    held = {leaf.path for leaf in found.leaves}
    for where, value in list(_layout.leaves(variables)):
        parents = {
            Where(where.collection, where.path[:i]) for i in range(len(where.path))
        }
        if where in there or parents & there or where.path in held:
            continue
        parent, name = graph.at(module, where.path[:-1]), where.path[-1]
        if isinstance(parent, nnx.Module) and isinstance(name, str):
            parent.__setattr__(name, graph.type_of(where.collection)(value))


def _collect(
    bound: graph.Bound,
    fed: streams.Fed,
    plan: Plan,
    variables: Variables,
    record: Record,
    host: Host,
) -> None:
    """Records what the run made and wrote, and has it in `variables`."""
    gone = {leaf.where for leaf in bound.graph.kept if leaf.where is not None}
    counts: dict[names.Path, Any] = {}
    for leaf, before in bound.leaves():
        if leaf.is_stream:
            if isinstance(leaf.value, nnx.RngCount):
                counts[leaf.path[:-1]] = leaf.value
        elif leaf.where is None:
            if before is not MISSING and leaf.value is not before:
                raise _errors.array_attribute_changed(leaf.path)
        else:
            gone.discard(leaf.where)
            _record(leaf.where, leaf.value, before, plan, variables, record, host)
    fed.check([counts.get(key.path[:-1]) for key in bound.graph.keys])
    for where in gone:
        _layout.remove(variables, where)
        record.wrote.add(where)


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
    if value is before:
        return
    passed = False if before is MISSING else is_passed(value, before)
    if passed or (passed is None and where.collection == PARAMS):
        return
    sown = graph.is_transient(type(variable)) or not host.keeps(where.collection)
    if not sown and not in_filter(plan.mutable, where.collection):
        raise _explained(host, where, _immutable)
    _layout.place(variables, where, value)
    if sown:
        record.sown[where.collection] = where.path[:-1]
    happened = record.made if sown or before is MISSING else record.wrote
    happened.update(_layout.below(where, value))
