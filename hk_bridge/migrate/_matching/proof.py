"""Both networks run with the weights that were found, and all compared.

Nothing of the search is trusted here: outputs are those of both `apply`, as they are
called. Then both traced programs run in float64 with other weights and inputs, much
like those given: weights that start as zeros would hide what is wrong."""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
from jax.extend import core as jex
import jax.numpy as jnp
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge.migrate._matching.arithmetic import run_all
from hk_bridge.migrate._matching.arithmetic import widened
from hk_bridge.migrate._matching.distances import distance
from hk_bridge.migrate._matching.distances import largest
from hk_bridge.migrate._matching.flat import Flat
from hk_bridge.migrate._matching.leaf_table import LeafTable
from hk_bridge.migrate._matching.prints import row_of
from hk_bridge.migrate._matching.side import generic
from hk_bridge.migrate._matching.side import moved_inputs
from hk_bridge.migrate._matching.solve import Solved
from hk_bridge.migrate._matching.solve import output_pairs
from hk_bridge.migrate._matching.spelling import where_of
from hk_bridge.migrate._matching.trace import Given
from hk_bridge.migrate._matching.trace import Network
from hk_bridge.migrate._matching.trees import leaves_of

# Of the size of the values: constants are rounded to float32, in two ways maybe.
CLOSE = 1e-5
_QUICK = {"xla_backend_optimization_level": 0}  # it runs once


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


def prove(
    flax: Network, haiku: Network, solved: Solved, table: LeafTable, given: Given,
    variables: Any,
) -> Proof:  # fmt: skip
    """Compares both networks for the given weights and inputs."""
    theirs = list(flax.leaves.values())
    ours = _haikus(haiku, table, variables)
    form, outputs, exact = _native(flax, haiku, theirs, ours, given)
    inputs = moved_inputs(_arrays((given.args, dict(given.kwargs))), seed=2)
    theirs = [narrowed(value) for value in generic(flax.leaves, seed=3)]
    wheres = [_layout.Where(*where_of(name)) for name in flax.leaves]
    variables = _layout.insert({}, dict(zip(wheres, theirs, strict=True)))
    ours = _haikus(haiku, table, variables)
    outputs_64, inner, where, compared = _inner(solved, theirs, ours, inputs)
    slope, leaf = _gradients(flax, haiku, solved, theirs, ours, given, inputs)
    return Proof(form, outputs, exact, outputs_64, inner, where, compared, slope, leaf)


def _haikus(haiku: Network, table: LeafTable, variables: Any) -> list[Any]:
    """The leaves of Haiku that a table makes of variables, in order."""
    held = dict(leaves_of(*table.to_haiku(variables)))
    return [
        held.get(name, np.zeros(spec.shape, spec.dtype))
        for name, spec in haiku.leaves.items()
    ]


def narrowed(value: np.ndarray) -> np.ndarray:
    """Floats as float32, in which both networks hold them to the same bits."""
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def _native(
    flax: Network, haiku: Network, theirs: Any, ours: Any, given: Given
) -> tuple[str, float, bool]:
    """How the outputs as the networks are differ: in form, by how much, if at all."""
    made = [_outputs(haiku, ours, given), _outputs(flax, theirs, given)]
    forms = [[f"{x.dtype}{list(x.shape)}" for x in side] for side in made]
    if forms[0] != forms[1]:
        one, two = (", ".join(form) or "nothing" for form in forms)
        return f"{one} in Haiku, {two} in Flax", float("inf"), False
    pairs = list(zip(*made, strict=True))
    exact = all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in pairs)
    return "", max((distance(a, b) for a, b in pairs), default=0.0), exact


def _outputs(network: Network, values: Sequence[Any], given: Given) -> list[Any]:
    """The outputs of a network, compiled once: each step alone takes far longer."""
    call = lambda *all_: network.call(*all_)["output"]
    operands = (list(values), given.args, dict(given.kwargs))
    program = _abstract.trace(call, *operands).program
    compiled = jax.jit(jex.jaxpr_as_fun(program), compiler_options=_QUICK)
    made: list[Any] = compiled(*_arrays(operands))
    return made


def _arrays(tree: Any) -> list[Any]:
    return [x for x in jax.tree.leaves(tree) if _abstract.is_array(x)]


def _inner(
    solved: Solved, theirs: Sequence[Any], ours: Sequence[Any], inputs: Sequence[Any]
) -> tuple[float, float, str, int]:
    haiku, flax = solved.haiku, solved.flax.side
    pairs = [
        (unit.site.out, other.site.out)
        for option in solved.search.held.options
        for unit, other in option
        if unit.site.role != "sum" or unit.columns is None
        if _are_whole(unit, other)
    ]
    pairs = list(dict.fromkeys(pairs))
    ends = [
        (haiku.flat.outputs[i], flax.flat.outputs[j])
        for i, j in output_pairs(solved.search, flax, haiku)
    ]
    paths = zip(haiku.flat.outputs, haiku.outputs, strict=True)
    outputs = {number for number, path in paths if path.startswith("['output']")}
    kept: list[dict[Any, Any]] = []
    for side, values, place in ((haiku, ours, 0), (flax, theirs, 1)):
        wanted = {pair[place] for pair in pairs}
        held: dict[Any, Any] = {}

        def look(
            number: int, value: Any, wanted: Any = wanted, held: Any = held
        ) -> None:
            if number in wanted:
                held[number] = np.sort(row_of(value))

        made = run_all(side.flat, side.given(values, inputs), look)
        held |= {("end", n): v for n, v in zip(side.flat.outputs, made, strict=True)}
        kept.append(held)
    last = 0.0
    for a, b in ends:
        one, two = kept[0]["end", a], kept[1]["end", b]
        if a not in outputs:  # state, which BatchNorm has as [1, 1, 1, C] and [C]
            one, two = one.ravel(), two.ravel()
        last = max(last, distance(one, two))
    found = [
        (distance(kept[0][a], kept[1][b], largest(kept[1][b])), a)
        for a, b in pairs
        if a in kept[0]
    ]
    worst = max(found, default=(0.0, None))
    step = None if worst[1] is None else haiku.flat.makers[worst[1]]
    return last, worst[0], step.scope if step is not None else "", len(found)


def _are_whole(unit: Any, other: Any) -> bool:
    """Whether the results of two sites are the same, and not merely their weights."""
    if unit.rows is not None or other.rows is not None:
        return False
    if unit.columns is not None or other.columns is not None:
        return False
    return unit.site.role in ("linear", "gather")


def _gradients(
    flax: Network, haiku: Network, solved: Solved, theirs: Any, ours: Any, given: Given,
    inputs: Sequence[Any],
) -> tuple[float, str]:  # fmt: skip
    """The largest distance of gradients by leaves of Flax, and at which."""
    rows = []
    for side, network, values in (
        (solved.haiku, haiku, ours),
        (solved.flax.side, flax, theirs),
    ):
        places = [
            i
            for i, (name, leaf) in enumerate(network.leaves.items())
            if name.startswith("params/") and jnp.issubdtype(leaf.dtype, jnp.floating)
        ]
        slopes = _slopes(network, values, places, given, inputs)
        row = np.zeros(side.terms.total)
        for place, slope in zip(places, slopes, strict=True):
            start, end = side.terms.starts[place : place + 2]
            row[start:end] = row_of(slope)
        rows.append(row)
    found = solved.search.held.found
    known = found >= 0
    summed = np.zeros(rows[1].size)
    np.add.at(summed, found[known], rows[0][known])
    covered = np.zeros(rows[1].size, bool)
    covered[found[known]] = True
    worst = (0.0, "")
    scale = largest(rows[1])
    flat = solved.flax.side
    for place, name in enumerate(flat.names):
        part = slice(*flat.terms.starts[place : place + 2])
        some = covered[part]
        if some.any() and name.startswith("params/"):
            size = max(largest(rows[1][part]), 1e-6 * scale)
            gap = distance(summed[part][some], rows[1][part][some], size)
            worst = max(worst, (gap, name))
    return worst


def _slopes(
    network: Network,
    values: Any,
    places: list[int],
    given: Given,
    inputs: Sequence[Any],
) -> list[Any]:
    """Gradients by some leaves of a weighted sum of all outputs that are floats."""

    def loss(some: Any, rest: Any, args: Any, kwargs: Any) -> Any:
        full = list(rest)
        for place, value in zip(places, some, strict=True):
            full[place] = value
        output = network.call(full, args, kwargs)["output"]
        total = jnp.zeros((), jnp.float32)
        for leaf in jax.tree.leaves(output):
            if _abstract.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating):
                weight = np.random.default_rng(leaf.size).uniform(-1, 1, leaf.shape)
                total += (leaf.astype(jnp.float32) * weight.astype(np.float32)).sum()
        return total

    if not places:
        return []
    rest = [
        jnp.zeros((), jnp.float32) if i in places else v for i, v in enumerate(values)
    ]
    some = [values[place] for place in places]
    specs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in some]
    traced = _abstract.trace(
        jax.grad(loss), specs, rest, given.args, dict(given.kwargs)
    )
    flat = Flat(traced.program, 0)
    numbers = [widened(np.asarray(x)) for x in (*some, *rest)]
    return run_all(flat, dict(zip(flat.inputs, [*numbers, *inputs], strict=True)))
