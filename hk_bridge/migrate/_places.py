"""Which layers are in the same place of two programs, whatever they compute inside."""

from collections import Counter
from collections.abc import Hashable
from collections.abc import Iterator
import inspect
from typing import Any
from typing import NamedTuple

import jax
from jax.extend import core as jex

from hk_bridge import _abstract
from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge._proof import numbering
from hk_bridge._proof import plain
from hk_bridge._proof.numbering import Equation
from hk_bridge._proof.numbering import Value
from hk_bridge.migrate._recorded import Layer
from hk_bridge.migrate._recorded import Recorded
from hk_bridge.migrate._recorded import Watch

# Operands of these may be in any order.
_COMMUTE = {"add", "mul", "max", "min", "and", "or", "eq", "ne"}
_TRANSPARENT = {"jit", "pjit", "closed_call", "core_call", "remat", "checkpoint"}
_TRANSPARENT |= {"remat2", "custom_jvp_call", "custom_vjp_call"}


class _Box:
    """A layer as a parameter of an equation, where it counts by what it is alone."""

    def __init__(self, layer: Layer):
        self.layer = layer
        self.key: Hashable = (layer.kind, layer.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Box) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


_layer = jex.Primitive("layer")  # stands for a call of a layer
_layer.multiple_results = True
_layer.def_abstract_eval(lambda *_, avals, **__: list(avals))


class _Boxes(Watch):
    """Puts one equation in the place of each call of a layer."""

    def __init__(self, network: Recorded):
        super().__init__()
        self._layers = {(each.net, each.name): each for each in network.layers}
        self.boxed: set[Layer] = set()
        self._prefixes: dict[int, str] = {}  # of names in lifted transforms, by depth

    def prefix(self) -> str | None:
        return self._prefixes.get(_haiku.transforms(), super().prefix())

    def haiku(self, run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        if context.method_name == "__call__":
            inside = f"{self.prefix() or ''}{context.module.module_name}/"
            self._prefixes[_haiku.transforms() + 1] = inside
        return super().haiku(run, args, kwargs, context)

    def _run(self, layer: Layer, is_layer: bool, run: Any, args: Any, kw: Any) -> Any:
        is_inside, known = bool(self._known), self._layers.get((layer.net, layer.name))
        output = super()._run(layer, is_layer, run, args, kw)
        if is_inside or not is_layer or known is None:
            return output
        self.boxed.add(known)
        given = [x for x in jax.tree.leaves((args, kw)) if _abstract.is_array(x)]
        leaves, tree = jax.tree.flatten(output)
        avals = tuple(map(jax.typeof, leaves))
        made = _layer.bind(*given, layer=_Box(known), avals=avals)
        return jax.tree.unflatten(tree, made)


class _Program(NamedTuple):
    """What a network returns, its layers as boxes."""

    outputs: list[Value]
    equations: list[Equation]
    owners: dict[int, Layer]  # of parameters, by the ids of their values


def places(old: Recorded, new: Recorded) -> dict[Layer, Layer]:
    """The layers that are in the same place of both programs, as far as it is known.

    A place is known by what goes in, if no other layer of the kind has that, or by how
    the outputs are made of it. Nothing is known of a network that cannot be traced.
    """
    table = numbering.Table(_TRANSPARENT)
    try:
        one, two = _traced(old, table), _traced(new, table)
    except Exception:  # of code of the user's, which `init` has not run
        return {}
    found: dict[Layer, set[Layer]] = {}
    sources: dict[Layer, set[Layer]] = {}
    for a, b in [*_by_inputs(one, two), *_by_outputs(one, two)]:
        found.setdefault(a, set()).add(b)
        sources.setdefault(b, set()).add(a)
    certain = {a: next(iter(some)) for a, some in found.items() if len(some) == 1}
    return {a: b for a, b in certain.items() if len(sources[b]) == 1}


def _traced(network: Recorded, table: numbering.Table) -> _Program:
    watch, positions = _Boxes(network), dict(enumerate(network.specs))
    apply: Any = network.transformed.apply
    has_key = "rng" in inspect.signature(apply).parameters  # or `hk.without_apply_rng`

    def run(args: Any, kwargs: Any, key: Any, leaves: list[Any]) -> Any:
        trees: Any = ({}, {})
        for address, leaf in zip(network.specs, leaves, strict=True):
            bundles = trees[address.is_state]
            bundles.setdefault(address.module, {})[address.name] = leaf
        given = trees if network.is_stateful else trees[:1]
        given = (*given, key) if has_key else given
        flax, haiku = _flax.linen, _haiku.native
        with haiku.intercept_methods(watch.haiku), flax.intercept_methods(watch.flax):
            made = apply(*given, *args, **kwargs)
        return made[0] if network.is_stateful else made

    leaves = list(network.specs.values())
    inputs = (network.args, network.kwargs, jax.random.key(0), leaves)
    program = table.read(_abstract.trace(run, *inputs).program)
    # What a box reads tells nothing: inside a loop it is there, but in another order.
    open_ = [layer for layer in network.layers if layer not in watch.boxed]
    owned = {a: layer for layer in open_ for a in layer.leaves.values()}
    own = program.entries[len(program.entries) - len(leaves) :]
    owners = {
        id(value): owned[positions[i]]
        for i, value in enumerate(own)
        if positions[i] in owned
    }
    return _Program(program.outputs, list(program.all()), owners)


def _boxed(equation: Equation | None) -> Any:
    """The layer that an equation stands for, in its box."""
    return None if equation is None else equation.params.get("layer")


def _by_inputs(one: _Program, two: _Program) -> Iterator[tuple[Layer, Layer]]:
    """Layers that alone of their kind get what they get."""
    sides: list[dict[int, set[Layer]]] = [{}, {}]
    for side, program in zip(sides, (one, two), strict=True):
        for equation in program.equations:
            if isinstance(box := _boxed(equation), _Box):
                side.setdefault(equation.number, set()).add(box.layer)
    for number in sides[0].keys() & sides[1].keys():
        some, others = sides[0][number], sides[1][number]
        if len(some) == len(others) == 1:
            yield from zip(some, others, strict=True)


def _by_outputs(one: _Program, two: _Program) -> Iterator[tuple[Layer, Layer]]:
    """Layers on the same way back from the outputs."""
    if len(one.outputs) != len(two.outputs):
        return
    todo = list(zip(one.outputs, two.outputs, strict=True))
    seen: set[tuple[int, int]] = set()
    while todo:
        a, b = todo.pop()
        if (id(a), id(b)) in seen:
            continue
        seen.add((id(a), id(b)))
        x, y = a.equation, b.equation
        if x is None or y is None:
            if id(a) in one.owners and id(b) in two.owners:
                yield one.owners[id(a)], two.owners[id(b)]
            continue
        boxes = _boxed(x), _boxed(y)
        if not _alike(x, y):
            continue
        if isinstance(boxes[0], _Box):
            yield boxes[0].layer, boxes[1].layer
        todo += _operands(x, y)
        for inner, other in zip(x.inner, y.inner, strict=True):
            if len(inner.outputs) == len(other.outputs):
                todo += zip(inner.outputs, other.outputs, strict=True)


def _alike(x: Equation, y: Equation) -> bool:
    """Whether two equations are of one primitive, but for the programs inside them."""
    if x.eqn.primitive.name != y.eqn.primitive.name or len(x.inner) != len(y.inner):
        return False
    rows = {k: v if plain.is_row(v) else [v] for k, v in x.params.items()}
    keys = [key for key, row in rows.items() if not any(map(plain.is_program, row))]
    if x.eqn.primitive.name == "scan":  # the others count what layers read inside
        keys = ["length", "reverse"]
    return all(x.plain[key] == y.plain.get(key) for key in keys)


def _operands(x: Equation, y: Equation) -> Iterator[tuple[Value, Value]]:
    """Which operands belong together: by their numbers, if they may be turned, or are
    not as many."""
    sides = [{value.number: value for value in side.operands} for side in (x, y)]
    is_long = len(x.operands) == len(y.operands)
    may_turn = x.eqn.primitive.name in {*_COMMUTE, _layer.name}
    is_turned = may_turn and len(sides[0]) == len(x.operands)  # no number twice
    if is_long and not (is_turned and sides[0].keys() == sides[1].keys()):
        yield from zip(x.operands, y.operands, strict=True)
        return
    counts = [Counter(value.number for value in side.operands) for side in (x, y)]
    for number, value in sides[0].items():
        if counts[0][number] == counts[1][number] == 1:
            yield value, sides[1][number]
