"""Both networks run with the weights that were found, and all compared.

Nothing of the search is trusted here: outputs are those of both `apply`, step by step
as they are called. Then both programs run in float64 with other weights and inputs,
much like those given: weights that start as zeros would hide what is wrong."""

from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge.migrate._matching.arithmetic import run_all
from hk_bridge.migrate._matching.distances import distance
from hk_bridge.migrate._matching.distances import largest
from hk_bridge.migrate._matching.leaf_table import LeafTable
from hk_bridge.migrate._matching.prints import are_close
from hk_bridge.migrate._matching.prints import factor_of
from hk_bridge.migrate._matching.prints import row_of
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.side import generic
from hk_bridge.migrate._matching.side import moved_inputs
from hk_bridge.migrate._matching.sites import Unit
from hk_bridge.migrate._matching.slopes import Rules
from hk_bridge.migrate._matching.slopes import slopes
from hk_bridge.migrate._matching.solve import Solved
from hk_bridge.migrate._matching.solve import output_pairs
from hk_bridge.migrate._matching.spelling import where_of
from hk_bridge.migrate._matching.trace import Given
from hk_bridge.migrate._matching.trace import Network
from hk_bridge.migrate._matching.trees import leaves_of

OUTPUT, PARAMS = "['output']", "params/"
# Of the size of the values: constants are rounded to float32, in two ways maybe.
CLOSE = 1e-5


@dataclasses.dataclass(frozen=True)
class Proof:
    """How far apart both networks are, of the size of the values.

    Attributes:
      form: how the outputs differ in number, shape or dtype; empty if they do not.
      outputs: the largest distance of outputs, as both are called.
      exact: whether these are equal to the last bit.
      outputs_64: the same in float64, where rounding hides nothing, with weights and
        inputs much like those given, none of them constant; so for what follows.
      inner: that of the results of layers, in float64.
      inner_where: the layer of Haiku with it.
      compared: how many results of layers were compared.
      gradients: that of the gradients by the weights, in float64.
      gradients_where: the leaf of Flax with it.
    """

    form: str
    outputs: float
    exact: bool
    outputs_64: float
    inner: float
    inner_where: str
    compared: int
    gradients: float
    gradients_where: str

    @property
    def holds(self) -> bool:
        """Whether all of it is as close as arithmetic lets it be."""
        worst = max(self.outputs_64, self.inner, self.gradients)
        return not self.form and worst <= CLOSE

    def __str__(self) -> str:
        outputs = "equal to the last bit" if self.exact else f"{self.outputs:.1e} apart"
        outputs = self.form or outputs
        lines = [
            f"outputs: {outputs}; {self.outputs_64:.1e} in float64",
            f"inner values: {self.inner:.1e}, at {self.inner_where or 'none'}, of "
            f"{self.compared} compared",
            f"gradients: {self.gradients:.1e}, at {self.gradients_where or 'none'}",
        ]
        return "\n".join(lines)


class Claims(NamedTuple):
    """What a search came to, as far as it is to be proven.

    Attributes:
      sides: of Haiku and of Flax.
      found: which element of Flax each element of Haiku's weights is.
      inner: values of Haiku and of Flax that have to be the same, by their numbers, if
        the second is multiplied by the third.
      ends: outputs that have to be the same, by their places.
    """

    sides: tuple[Side, Side]
    found: np.ndarray
    inner: list[tuple[int, int, float]]
    ends: list[tuple[int, int]]


def claims(solved: Solved) -> Claims:
    """What a search came to; the rest of it can be forgotten."""
    sides = solved.haiku, solved.flax.side
    one, two = (Side(side.flat, side.names, side.outputs) for side in sides)
    inner = [
        (unit.site.out, other.site.out, _factor(sides, unit, other))
        for option in solved.search.held.options
        for unit, other in option
        if _are_whole(unit, other)
    ]
    ends = output_pairs(solved.search, sides[1], sides[0])
    found = solved.search.held.found
    return Claims((one, two), found, list(dict.fromkeys(inner)), ends)


def prove(
    flax: Network, haiku: Network, claimed: Claims, table: LeafTable, given: Given,
    found: tuple[Any, Any],
) -> Proof:  # fmt: skip
    """Compares both networks for the given weights and inputs.

    Args:
      found: Haiku's params and state with the weights of Flax.
    """
    operands = jax.tree.leaves((given.args, dict(given.kwargs)))
    arrays = [x for x in operands if _abstract.is_array(x)]
    weights = [_haikus(haiku, *found), list(flax.leaves.values())]
    form, outputs, exact = _native(claimed.sides, weights, arrays)
    made = generic(flax.leaves, seed=3)
    theirs = [
        _moved(name, narrowed(v)) for name, v in zip(flax.leaves, made, strict=True)
    ]
    wheres = [_layout.Where(*where_of(name)) for name in flax.leaves]
    variables = _layout.insert({}, dict(zip(wheres, theirs, strict=True)))
    weights = [_haikus(haiku, *table.to_haiku(variables)), theirs]
    rules: Rules = {}
    inputs = moved_inputs(arrays, seed=2)
    runs = [
        _run(side, weights.pop(0), inputs, {pair[i] for pair in claimed.inner}, rules)
        for i, side in enumerate(claimed.sides)
    ]
    outputs_64 = _outputs(claimed, runs)
    inner, where, compared = _inner(claimed, runs)
    slope, leaf = _gradients(claimed, runs)
    return Proof(form, outputs, exact, outputs_64, inner, where, compared, slope, leaf)


def _haikus(haiku: Network, params: Any, state: Any) -> list[Any]:
    """The leaves of Haiku, in order; what nothing reads is zeros."""
    held = dict(leaves_of(params, state))
    return [
        held.get(name, np.zeros(spec.shape, spec.dtype))
        for name, spec in haiku.leaves.items()
    ]


def _moved(name: str, value: np.ndarray) -> np.ndarray:
    """Other numbers for counters: of 0 nothing tells what it is multiplied by."""
    is_count = not name.startswith(PARAMS) and value.dtype.kind in "iu"
    return value + value.dtype.type(2 + len(name) % 3) if is_count else value


def narrowed(value: np.ndarray) -> np.ndarray:
    """Floats as float32, in which both networks hold them to the same bits."""
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def _native(
    sides: tuple[Side, Side], weights: Sequence[Any], inputs: Sequence[Any]
) -> tuple[str, float, bool]:
    """How the outputs as the networks are differ: in form, by how much, if at all."""
    made = []
    for side, values in zip(sides, weights, strict=True):
        ends = run_all(side.flat, side.given(values, inputs), wide=False)
        paths = zip(ends, side.outputs, strict=True)
        made.append([end for end, path in paths if path.startswith(OUTPUT)])
    forms = [[f"{x.dtype}{list(x.shape)}" for x in side] for side in made]
    if forms[0] != forms[1]:
        one, two = (", ".join(form) or "nothing" for form in forms)
        return f"{one} in Haiku, {two} in Flax", float("inf"), False
    pairs = list(zip(*made, strict=True))
    exact = all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
    return "", max((distance(a, b) for a, b in pairs), default=0.0), exact


class _Run(NamedTuple):
    """What a program gave in float64.

    Attributes:
      ends: its outputs.
      inner: some values, each in the order of its elements' sizes.
      slopes: gradients by its params, by their places among the leaves.
    """

    ends: dict[int, Any]
    inner: dict[int, Any]
    slopes: dict[int, Any]


def _run(
    side: Side,
    weights: Sequence[Any],
    inputs: Sequence[Any],
    wanted: set[int],
    rules: Rules,
) -> _Run:
    flat, values = side.flat, dict[int, Any]()
    made = run_all(flat, side.given(weights, inputs), values.__setitem__)
    ends = dict(zip(flat.outputs, made, strict=True))
    values |= flat.constants
    pulls: dict[int, Any] = {}
    for number, path in zip(flat.outputs, side.outputs, strict=True):
        if path.startswith(OUTPUT) and ends[number].dtype.kind == "f":
            shape = flat.shape(number)
            weight = np.random.default_rng(flat.size(number)).uniform(-1, 1, shape)
            pulls[number] = pulls.get(number, 0.0) + weight
    places = {
        number: place
        for place, (name, number) in enumerate(
            zip(side.names, flat.weights, strict=True)
        )
        if name.startswith(PARAMS)
        and jnp.issubdtype(flat.avals[number].dtype, jnp.floating)
    }
    found = slopes(flat, values, pulls, list(places), rules)
    inner = {n: np.sort(row_of(values[n])) for n in wanted if n in values}
    by_place = {places[n]: slope.astype(np.float32) for n, slope in found.items()}
    return _Run(ends, inner, by_place)


def _outputs(claimed: Claims, runs: Sequence[_Run]) -> float:
    haiku, flax = claimed.sides
    last = 0.0
    for i, j in claimed.ends:
        one = runs[0].ends[haiku.flat.outputs[i]]
        two = runs[1].ends[flax.flat.outputs[j]]
        if not haiku.outputs[i].startswith(OUTPUT):
            one, two = one.ravel(), two.ravel()  # [1, 1, 1, C] and [C] of BatchNorm
        last = max(last, distance(one, two))
    return last


def _inner(claimed: Claims, runs: Sequence[_Run]) -> tuple[float, str, int]:
    """The largest distance of results of layers, at which layer, of how many."""
    one, two = (run.inner for run in runs)
    found = []
    for a, b, factor in claimed.inner:
        if a in one and b in two:
            scaled = np.sort(factor * two[b])
            found.append((distance(one[a], scaled, largest(scaled)), a))
    worst = max(found, default=(0.0, None))
    makers = claimed.sides[0].flat.makers
    step = None if worst[1] is None else makers[worst[1]]
    return worst[0], step.scope if step is not None else "", len(found)


def _are_whole(unit: Unit, other: Unit) -> bool:
    """Whether the results of two sites are the same, and not merely their weights."""
    if unit.rows is not None or other.rows is not None:
        return False
    if unit.columns is not None or other.columns is not None:
        return False
    return unit.site.role in ("linear", "gather")


def _factor(sides: tuple[Side, Side], unit: Unit, other: Unit) -> float:
    """By what a result is larger in Haiku, if a number is put before another layer."""
    made = (
        s.prints.of.get(u.site.out) for s, u in zip(sides, (unit, other), strict=True)
    )
    one, two = made
    if one is None or two is None or are_close(one, two):
        return 1.0
    return factor_of(one, two) or 1.0


def _gradients(claimed: Claims, runs: Sequence[_Run]) -> tuple[float, str]:
    """The largest distance of gradients by leaves of Flax, and at which."""
    (haiku, flax), found = claimed.sides, claimed.found
    ours, theirs = (run.slopes for run in runs)
    summed = np.zeros(flax.terms.total)
    covered = np.zeros(flax.terms.total, bool)
    for place in range(len(haiku.names)):
        which = found[slice(*haiku.terms.starts[place : place + 2])]
        known = which >= 0
        covered[which[known]] = True
        if place in ours:
            np.add.at(summed, which[known], row_of(ours.pop(place))[known])
    scale = max(map(largest, theirs.values()), default=0.0)
    worst = (0.0, "")
    for place, name in enumerate(flax.names):
        part = slice(*flax.terms.starts[place : place + 2])
        some = covered[part]
        if some.any() and name.startswith(PARAMS):
            zeros = np.zeros(some.size)
            row = row_of(theirs[place]) if place in theirs else zeros
            size = max(largest(row), 1e-6 * scale)
            gap = distance(summed[part][some], row[some], size)
            worst = max(worst, (gap, name))
    return worst
