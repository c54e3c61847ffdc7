"""`carry`: the weights of a network in another one, where layers were swapped."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import dataclasses
import difflib
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge import _tables
from hk_bridge.migrate._differences import differences
from hk_bridge.migrate._recorded import Address
from hk_bridge.migrate._recorded import Layer
from hk_bridge.migrate._recorded import Recorded
from hk_bridge.migrate._recorded import counted
from hk_bridge.migrate._recorded import record
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

    >>> Carried([Paired("linear", "dense", "Linear", "")], [], ["params['a']['w']"])
    old     new    layer   differs
    ------  -----  ------  -------
    linear  dense  Linear
    missing: params['a']['w']
    """

    pairs: Sequence[Paired]
    left: Sequence[str]
    missing: Sequence[str]

    @property
    def ok(self) -> bool:
        """Whether each leaf of both networks is in a pair, and no layer differs."""
        differs = any(pair.differs for pair in self.pairs)
        return not (self.left or self.missing or differs)

    def __repr__(self) -> str:
        rows = [(p.old, p.new, p.kind, p.differs) for p in self.pairs]
        lines = [_tables.table([("old", "new", "layer", "differs"), *rows])]
        lines += [f"left: {leaf}" for leaf in self.left]
        lines += [f"missing: {leaf}" for leaf in self.missing]
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
    call alike, by a name that was chosen (`name="query"`), then in the order of their
    first calls. Leaves are handed over untouched, or turned as by `twin`.

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
    before, after = record(old.init, args, kwargs), record(new.init, args, kwargs)
    trees: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    if rng is not None:
        made = jax.jit(lambda key: new.init(key, *args, **kwargs))(rng)
        pair = made if isinstance(made, tuple) else (made, {})
        for tree, full in zip(trees, pair, strict=True):
            tree.update({module: dict(bundle) for module, bundle in full.items()})
    steps, pairs = plan(before, after)
    for step in steps:
        given = [_read(address, params, state or {}) for address in step.old]
        for address, leaf in zip(step.new, step.make(*given), strict=True):
            trees[address.is_state].setdefault(address.module, {})[address.name] = leaf
    left = before.specs.keys() - {a for step in steps for a in step.old}
    missing = after.specs.keys() - {a for step in steps for a in step.new}
    report = Carried(pairs, _listed(before, left), _listed(after, missing))
    return *trees, report


def _read(address: Address, params: Any, state: Any) -> Any:
    return (state if address.is_state else params)[address.module][address.name]


def _listed(network: Recorded, which: Any) -> list[str]:
    return [str(address) for address in network.specs if address in which]


def plan(old: Recorded, new: Recorded) -> tuple[list[Step], list[Paired]]:
    """Which leaves become which, layer by layer."""
    steps, pairs = [], []
    for one, two in _aligned(old.layers, new.layers):
        kind = getattr(one.kind, "__name__", str(one.kind))
        try:
            found, differs = _steps(one, two, old, new)
        except ValueError as error:  # such as there being no twin
            found, differs = [], str(error)
        steps += found
        pairs.append(Paired(one.name, two.name, kind, differs))
    return [*steps, *_by_name(old, new)], pairs


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


def _aligned(old: list[Layer], new: list[Layer]) -> list[tuple[Layer, Layer]]:
    """The layers of the same kind and size that have the same chosen names; of the
    rest, those that come in the same order; and those that do not, but have no double.
    """
    found = _by_label(old, new)
    rest = [
        [i for i in range(len(old)) if i not in found],
        [i for i in range(len(new)) if i not in found.values()],
    ]
    keys = [
        [(layers[i].kind, layers[i].size) for i in some]
        for layers, some in zip((old, new), rest, strict=True)
    ]
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for block in matcher.get_matching_blocks():
        for i in range(block.size):
            found[rest[0][block.a + i]] = rest[1][block.b + i]
    for i, key in zip(rest[0], keys[0], strict=True):
        if i not in found and keys[0].count(key) == keys[1].count(key) == 1:
            found[i] = rest[1][keys[1].index(key)]
    return [(old[i], new[k]) for i, k in sorted(found.items())]


def _by_label(old: list[Layer], new: list[Layer]) -> dict[int, int]:
    """Where the layers are that both networks call alike, as often as each other."""
    groups: list[dict[Any, list[int]]] = [{}, {}]
    for group, layers in zip(groups, (old, new), strict=True):
        for i, layer in enumerate(layers):
            if layer.label:
                label = tuple(map(counted, layer.label))
                group.setdefault((layer.kind, layer.size, label), []).append(i)
    found: dict[int, int] = {}
    for key in groups[0].keys() & groups[1].keys():
        some, others = groups[0][key], groups[1][key]
        if len(some) == len(others):
            labels = [new[k].label for k in others]
            if sorted(labels) == sorted({old[i].label for i in some}):
                others = [others[labels.index(old[i].label)] for i in some]
            found |= dict(zip(some, others, strict=True))
    return found


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
    steps = []
    for move in made._moves:
        haiku = [Address(move.is_state, *a) for a in move.addresses(native.name)]
        flaxs = [flax.leaves[key] for key in move.flax]
        if flax is two:
            steps.append(Step(haiku, flaxs, move.to_flax))
        else:
            steps.append(Step(flaxs, haiku, move.to_haiku))
    return list(_fitting(steps, old, new)), differences(made, native)


def _zeros(layer: Layer, network: Recorded) -> dict[str, Any]:
    """Variables of a Flax layer, of the right shapes."""
    variables: dict[str, Any] = {}
    for key, address in layer.leaves.items():
        spec, (*parents, last) = network.specs[address], key.split("/")
        level = variables
        for part in parents:
            level = level.setdefault(part, {})
        level[last] = np.zeros(spec.shape, spec.dtype)
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
