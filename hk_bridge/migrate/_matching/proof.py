"""Both networks run with the weights that were found, and all compared.

Nothing of the search is trusted here: outputs are those of both `apply`, step by step
as they are called. Then both programs run in float64 with other weights and inputs,
much like those given: weights that start as zeros would hide what is wrong."""

from collections.abc import Callable
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
from hk_bridge.migrate._matching.claims import Claims
from hk_bridge.migrate._matching.distances import distance
from hk_bridge.migrate._matching.distances import largest
from hk_bridge.migrate._matching.gradients import Slopes
from hk_bridge.migrate._matching.leaf_table import LeafTable
from hk_bridge.migrate._matching.prints import row_of
from hk_bridge.migrate._matching.side import Side
from hk_bridge.migrate._matching.side import generic
from hk_bridge.migrate._matching.side import moved_inputs
from hk_bridge.migrate._matching.slopes import slopes as slopes_of
from hk_bridge.migrate._matching.spelling import where_of
from hk_bridge.migrate._matching.trace import Given
from hk_bridge.migrate._matching.trace import Network
from hk_bridge.migrate._matching.trees import leaves_of

OUTPUT, PARAMS = "['output']", "params/"
# Of the size of the values: constants are rounded to float32, in two ways maybe.
CLOSE = 1e-5
CLOSER = 5e-7  # where all is small: deep in a network an epsilon moves little
SEED = 3  # of other weights and inputs than those of the search
_NEAR = 0.1  # how far apart rounding, in bfloat16 say, leads at most


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
      small: that of the outputs where all weights and inputs are small, and no epsilon
        is: a variance may be too large for one to be seen.
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
    small: float
    gradients: float
    gradients_where: str

    @property
    def holds(self) -> bool:
        """Whether all of it is as close as arithmetic lets it be."""
        return not self.form and self.worst <= CLOSE and self.small <= CLOSER

    @property
    def worst(self) -> float:
        """The largest distance in float64."""
        return max(self.outputs_64, self.inner, self.small, self.gradients)

    def __str__(self) -> str:
        outputs = "equal to the last bit" if self.exact else f"{self.outputs:.1e} apart"
        outputs = self.form or outputs
        lines = [
            f"outputs: {outputs}; {self.outputs_64:.1e} in float64",
            f"inner values: {self.inner:.1e}, at {self.inner_where or 'none'}, of "
            f"{self.compared} compared",
            f"outputs where all is small: {self.small:.1e}",
            f"gradients: {self.gradients:.1e}, at {self.gradients_where or 'none'}",
        ]
        return "\n".join(lines)


def prove(
    flax: Network,
    haiku: Network,
    claimed: Claims,
    table: LeafTable,
    given: Given,
    found: tuple[Any, Any],
    most: float | None = None,
) -> Proof | None:
    """Compares both networks for the given weights and inputs.

    Args:
      found: Haiku's params and state with the weights of Flax.
      most: how far apart they may be for a proof, if one is asked for that holds.
    """
    operands = jax.tree.leaves((given.args, dict(given.kwargs)))
    arrays = [x for x in operands if _abstract.is_array(x)]
    weights = [_haikus(haiku, *found), list(flax.leaves.values())]
    form, outputs, exact = _native(claimed.sides, weights, arrays)
    if most is not None and (form or outputs > _NEAR):
        return None
    weights = _new_weights(flax, haiku, table, SEED)
    inputs = moved_inputs(arrays, seed=SEED)
    asked = {a for a, _, _ in claimed.inner}, {b for _, b, _ in claimed.inner}
    slopes = Slopes(claimed)
    runs = [
        _run(side, weights.pop(0), inputs, some, slopes, take)
        for side, some, take in zip(
            claimed.sides, asked, (slopes.add, slopes.compare), strict=True
        )
    ]
    outputs_64 = _outputs(claimed, [run.ends for run in runs])
    inner, where, compared = _inner(claimed, runs)
    slope, leaf = slopes.worst()
    del runs, slopes
    small = _small(claimed, _new_weights(flax, haiku, table, SEED, small=True), arrays)
    made = Proof(
        form, outputs, exact, outputs_64, inner, where, compared, small, slope, leaf
    )
    return made if most is None or (made.holds and made.worst <= most) else None


def _new_weights(
    flax: Network, haiku: Network, table: LeafTable, seed: int, *, small: bool = False
) -> list[list[Any]]:
    """Other weights of Haiku and of Flax, the same by a table."""
    new = zip(flax.leaves, generic(flax.leaves, seed, small=small), strict=True)
    theirs = [_moved(name, narrowed(value)) for name, value in new]
    wheres = [_layout.Where(*where_of(name)) for name in flax.leaves]
    variables = _layout.insert({}, dict(zip(wheres, theirs, strict=True)))
    return [_haikus(haiku, *table.to_haiku(variables)), theirs]


def _small(claimed: Claims, weights: list[list[Any]], arrays: list[Any]) -> float:
    """The largest distance of outputs, where weights and inputs are small."""
    inputs = moved_inputs(arrays, SEED, small=True)
    ends = []
    for side in claimed.sides:
        made = run_all(side.flat, side.given(weights.pop(0), inputs))
        ends.append(dict(zip(side.flat.outputs, made, strict=True)))
    return _outputs(claimed, ends)


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
    """

    ends: dict[int, Any]
    inner: dict[int, Any]


def _run(
    side: Side,
    weights: Sequence[Any],
    inputs: Sequence[Any],
    wanted: set[int],
    found: Slopes,
    take: Callable[[int, Any], None],
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
    take_all = lambda number, slope: take(places[number], slope)
    slopes_of(flat, values, pulls, list(places), found.rules, take_all)
    inner = {n: np.sort(row_of(values[n])) for n in wanted if n in values}
    return _Run(ends, inner)


def _outputs(claimed: Claims, ends: Sequence[dict[int, Any]]) -> float:
    haiku, flax = claimed.sides
    last = 0.0
    for i, j in claimed.ends:
        one = ends[0][haiku.flat.outputs[i]]
        two = ends[1][flax.flat.outputs[j]]
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
