"""`carry`: the weights of a network in another one, where layers were swapped."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _errors
from hk_bridge import _layout
from hk_bridge import _tables
from hk_bridge.migrate._differences import differences
from hk_bridge.migrate._pairs import paired
from hk_bridge.migrate._recorded import Address
from hk_bridge.migrate._recorded import Layer
from hk_bridge.migrate._recorded import Recorded
from hk_bridge.migrate._recorded import record
from hk_bridge.migrate._stack.leaves import stacked
from hk_bridge.migrate._stack.leaves import unstacked
from hk_bridge.migrate._twins.layers import twin


class Step(NamedTuple):
    """Some leaves of the new network, that are made of some leaves of the old one."""

    old: Sequence[Address]
    new: Sequence[Address]
    make: Callable[..., Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Paired:
    """A layer of the old network, and the one that is in its place.

    Attributes:
      old, new: their Haiku names.
      kind: which layer of Haiku they are.
      differs: what the layers compute in other ways, in words; and why nothing was
        carried, if it could not be.

    >>> Paired("linear", "dense", "Linear", "").new
    'dense'
    """

    old: str
    new: str
    kind: str
    differs: str


@dataclasses.dataclass(frozen=True, repr=False)
class Carried:
    """What `carry` did.

    Attributes:
      pairs: the layers that have each other's weights.
      left: leaves of the old network that went nowhere, `params['linear']['w']`.
      missing: leaves of the new network that nothing was carried to.
      guessed: pairs that nothing but the order of the calls tells, and what else it
        could be, in words.

    >>> Carried([Paired("linear", "dense", "Linear", "")], [], ["params['a']['w']"])
    old     new    layer   differs
    ------  -----  ------  -------
    linear  dense  Linear
    missing: params['a']['w']
    """

    pairs: Sequence[Paired]
    left: Sequence[str]
    missing: Sequence[str]
    guessed: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Whether each leaf of both networks is in a pair, no layer differs, and no
        pair is a guess."""
        differs = any(pair.differs for pair in self.pairs)
        return not (self.left or self.missing or self.guessed or differs)

    def __repr__(self) -> str:
        rows = [(p.old, p.new, p.kind, p.differs) for p in self.pairs]
        lines = [_tables.table([("old", "new", "layer", "differs"), *rows])]
        lines += [f"left: {leaf}" for leaf in self.left]
        lines += [f"missing: {leaf}" for leaf in self.missing]
        lines += [f"guessed: {pair}" for pair in self.guessed]
        return "\n".join(lines)


def carry(
    old: Any,
    params: _layout.Bundles,
    state: _layout.Bundles | None,
    new: Any,
    *args: Any,
    rng: jax.Array | None = None,
    **kwargs: Any,
) -> tuple[dict[str, Any], dict[str, Any], Carried]:
    """The weights of a trained network in one where layers were swapped.

    That is layers of Haiku for those of Flax, or back: `hk.Linear` for
    `hk_bridge.nn.Dense`, `hk.LSTM` for `hk_bridge.nn.LSTMCell`, and so on, all that
    have a `twin`; modules that both networks have keep their leaves, whatever name they
    have now. Layers are paired by kind and number of weights: those that both networks
    call alike, by a name that was chosen (`name="query"`), then those that are in the
    same place of the programs of both, which have to have an `apply` for it. Where that
    tells nothing, the order of first calls does, and the report has it as a guess if
    there is another choice. Leaves are handed over untouched, or turned as by `twin`;
    in a `hk.layer_stack`, layer by layer.

    Args:
      old: the transformed network, `hk.transform(f)` and the like. It is run by shapes
        alone.
      params, state: of the old network; state is None after a plain `hk.transform`.
      new: the network with other layers, likewise.
      *args: inputs of both networks, as `init` takes them.
      rng: a key to initialise what nothing was carried to. Without one, that is left
        out of the trees.
      **kwargs: keyword inputs.

    Returns:
      `(params, state, report)`: of the new network, and what was paired.

    Raises:
      TypeError: `old` or `new` is no transformed network.
      VariablesError: `params` or `state` lacks a leaf of the old network.

    >>> import haiku as hk, hk_bridge, jax, jax.numpy as jnp
    >>> def net(dense):
    ...     return hk.transform(lambda x: hk.Sequential([dense(8), hk.Linear(2)])(x))
    >>> old, new = net(hk.Linear), net(hk_bridge.nn.Dense)
    >>> x = jnp.ones([1, 4])
    >>> trained = old.init(jax.random.key(0), x)
    >>> params, state, report = carry(old, trained, None, new, x)
    >>> report
    old       new     layer   differs
    --------  ------  ------  -------
    linear    dense   Linear
    linear_1  linear  Linear
    >>> bool((old.apply(trained, None, x) == new.apply(params, None, x)).all())
    True
    """
    before, after = record(old, args, kwargs), record(new, args, kwargs)
    trees: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    if rng is not None:
        made = jax.jit(lambda key: new.init(key, *args, **kwargs))(rng)
        pair = made if isinstance(made, tuple) else (made, {})
        for tree, full in zip(trees, pair, strict=True):
            tree.update({module: dict(bundle) for module, bundle in full.items()})
    steps, pairs, guessed = plan(before, after)
    for step in steps:
        given = [_read(address, params, state or {}) for address in step.old]
        for address, leaf in zip(step.new, step.make(*given), strict=True):
            trees[address.is_state].setdefault(address.module, {})[address.name] = leaf
    left = before.specs.keys() - {a for step in steps for a in step.old}
    missing = after.specs.keys() - {a for step in steps for a in step.new}
    report = Carried(pairs, _listed(before, left), _listed(after, missing), guessed)
    return *trees, report


def _read(address: Address, params: Any, state: Any) -> Any:
    tree = state if address.is_state else params
    try:
        return tree[address.module][address.name]
    except (KeyError, TypeError):
        raise _errors.lacks_carried(tree, str(address)) from None


def _listed(network: Recorded, which: Any) -> list[str]:
    return [str(address) for address in network.specs if address in which]


class Plan(NamedTuple):
    """Which leaves become which, layer by layer, and which pairs are guesses."""

    steps: list[Step]
    pairs: list[Paired]
    guessed: list[str]


def plan(old: Recorded, new: Recorded) -> Plan:
    """Which leaves become which."""
    steps, pairs = [], []
    aligned, guessed = paired(old, new)
    for one, two in aligned:
        kind = getattr(one.kind, "__name__", str(one.kind))
        try:
            found, differs = _steps(one, two, old, new)
        except ValueError as error:  # such as there being no twin
            found, differs = [], str(error)
        steps += found
        pairs.append(Paired(one.name, two.name, kind, differs))
    return Plan([*steps, *_by_name(old, new)], pairs, guessed)


def _by_name(old: Recorded, new: Recorded) -> Iterator[Step]:
    """Leaves that belong to no module of either network, as of `hk.lift`."""
    owned = [
        {address for layer in network.layers for address in layer.leaves.values()}
        for network in (old, new)
    ]
    for address in old.specs.keys() - owned[0]:
        if address in new.specs.keys() - owned[1]:
            with contextlib.suppress(ValueError):  # of another shape
                yield from _fitting([Step([address], [address], _same)], old, new)


def _same(*leaves: Any) -> Sequence[Any]:
    return leaves


def _steps(
    one: Layer, two: Layer, old: Recorded, new: Recorded
) -> tuple[list[Step], str]:
    """How the leaves of one layer become those of another, and what differs."""
    if one.is_flax == two.is_flax:
        steps = [
            Step([address], [two.leaves[key]], _same)
            for key, address in one.leaves.items()
            if key in two.leaves
        ]
        return list(_fitting(steps, old, new)), ""
    flax, native, network = (one, two, old) if one.is_flax else (two, one, new)
    variables = _zeros(flax, network)
    made = twin(flax.module, variables, name=native.name, ndim=flax.ndim)
    sizes, steps = flax.stacked, []
    for move in made._moves:
        haiku = [Address(move.is_state, *a) for a in move.addresses(native.name)]
        flaxs = [flax.leaves[key] for key in move.flax]
        if flax is two:
            steps.append(Step(haiku, flaxs, _one_by_one(move.to_flax, sizes)))
        else:
            steps.append(Step(flaxs, haiku, _one_by_one(move.to_haiku, sizes)))
    return list(_fitting(steps, old, new)), differences(made, native)


def _one_by_one(make: Callable[..., Any], sizes: Sequence[int]) -> Callable[..., Any]:
    """`make`, for leaves of which each is a stack of so many."""
    if not sizes:
        return make
    inner, count = _one_by_one(make, sizes[1:]), sizes[0]

    def made(*stacks: Any) -> Sequence[Any]:
        rows = zip(*[unstacked(x, 0, count, {}) for x in stacks], strict=True)
        columns = zip(*[inner(*row) for row in rows], strict=True)
        return [stacked(column, 0, {}) for column in columns]

    return made


def _zeros(layer: Layer, network: Recorded) -> dict[str, Any]:
    """Variables of a Flax layer, of the right shapes."""
    variables: dict[str, Any] = {}
    for key, address in layer.leaves.items():
        spec, (*parents, last) = network.specs[address], key.split("/")
        level = variables
        for part in parents:
            level = level.setdefault(part, {})
        level[last] = np.zeros(spec.shape[len(layer.stacked) :], spec.dtype)
    return variables


def _fitting(steps: list[Step], old: Recorded, new: Recorded) -> Iterator[Step]:
    """The steps, if all leaves are there, and have the shapes of the new ones."""
    for step in steps:
        lacking = [a for a in step.old if a not in old.specs]
        lacking += [a for a in step.new if a not in new.specs]
        if lacking:
            raise ValueError(f"There is no {lacking[0]}.")
        given = [old.specs[a] for a in step.old]
        make: Any = lambda *leaves, step=step: list(step.make(*leaves))
        made = _abstract.evaluate(make, *given)
        for address, leaf in zip(step.new, made, strict=True):
            shapes = [jax.tree.map(np.shape, x) for x in (leaf, new.specs[address])]
            if shapes[0] != shapes[1]:
                raise ValueError(f"{address} is {shapes[1]}, and not {shapes[0]}.")
        yield step
