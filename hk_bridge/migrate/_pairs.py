"""Which layers of two networks belong together."""

import difflib
from typing import Any

from hk_bridge.migrate._places import places
from hk_bridge.migrate._recorded import Layer
from hk_bridge.migrate._recorded import Recorded
from hk_bridge.migrate._recorded import counted


def paired(old: Recorded, new: Recorded) -> tuple[list[tuple[Layer, Layer]], list[str]]:
    """The layers that belong together, and which pairs are guesses, in words.

    Those are of one kind and size, and have the same chosen names; or are in the same
    place of both programs; of the rest, those that come in the same order, and those
    that do not, but have no double.
    """
    found = _by_label(old.layers, new.layers)
    if _doubles(_rest(old.layers, found), _rest(new.layers, found.values())):
        taken = {*found, *found.values()}
        for one, two in places(old, new).items():
            if not taken & {one, two} and _key(one) == _key(two):
                found[one] = two
    some, others = _rest(old.layers, found), _rest(new.layers, found.values())
    doubles = _doubles(some, others)
    by_order = _by_order(some, others)
    guessed = [
        f"{one.name} is {two.name}, by the order of calls alone; or "
        + " or ".join(x.name for x in others if x is not two and _key(x) == _key(two))
        for one, two in by_order.items()
        if _key(one) in doubles
    ]
    found |= by_order
    return [(one, found[one]) for one in old.layers if one in found], guessed


def _key(layer: Layer) -> Any:
    return layer.kind, layer.size


def _rest(layers: list[Layer], found: Any) -> list[Layer]:
    return [layer for layer in layers if layer not in found]


def _doubles(some: list[Layer], others: list[Layer]) -> set[Any]:
    """Kinds and sizes for which there is more than one choice."""
    keys = [list(map(_key, layers)) for layers in (some, others)]
    both = set(keys[0]) & set(keys[1])
    return {key for key in both if max(k.count(key) for k in keys) > 1}


def _by_order(some: list[Layer], others: list[Layer]) -> dict[Layer, Layer]:
    """Layers that come in the same order, and those that do not, but have no double."""
    keys = [list(map(_key, layers)) for layers in (some, others)]
    found: dict[Layer, Layer] = {}
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    for block in matcher.get_matching_blocks():
        ends = block.a + block.size, block.b + block.size
        found |= zip(some[block.a : ends[0]], others[block.b : ends[1]], strict=True)
    for layer, key in zip(some, keys[0], strict=True):
        if layer not in found and keys[0].count(key) == keys[1].count(key) == 1:
            found[layer] = others[keys[1].index(key)]
    return found


def _by_label(old: list[Layer], new: list[Layer]) -> dict[Layer, Layer]:
    """The layers that both networks call alike, as often as each other."""
    groups: list[dict[Any, list[Layer]]] = [{}, {}]
    for group, layers in zip(groups, (old, new), strict=True):
        for layer in layers:
            if layer.label:
                label = tuple(map(counted, layer.label))
                group.setdefault((*_key(layer), label), []).append(layer)
    found: dict[Layer, Layer] = {}
    for key in groups[0].keys() & groups[1].keys():
        some, others = groups[0][key], groups[1][key]
        if len(some) == len(others):
            labels = [layer.label for layer in others]
            if sorted(labels) == sorted({layer.label for layer in some}):
                others = [others[labels.index(layer.label)] for layer in some]
            found |= dict(zip(some, others, strict=True))
    return found
