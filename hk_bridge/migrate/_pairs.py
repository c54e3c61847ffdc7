"""Which layers of two networks belong together."""

from collections.abc import Iterator
import difflib
from typing import Any

from hk_bridge.migrate._places import places
from hk_bridge.migrate._recorded import Layer
from hk_bridge.migrate._recorded import Recorded
from hk_bridge.migrate._recorded import counted


def paired(old: Recorded, new: Recorded) -> tuple[list[tuple[Layer, Layer]], list[str]]:
    """The layers that belong together, and which pairs are guesses, in words.

    Those are of one kind and size. Whoever has the same chosen names as one other alone
    belongs to it. All others, among those of the same chosen names first, belong to who
    is in the same place of both programs; else to who comes in the same order, or has
    no double.
    """
    found: dict[Layer, Layer] = {}
    groups = list(_groups(old.layers, new.layers))
    for some, others in groups:
        if len(some) == 1:
            found |= zip(some, others, strict=True)
    groups.append((old.layers, new.layers))
    rests = [(_rest(old.layers, found), _rest(new.layers, found.values()))]
    known = places(old, new) if _doubles(*rests[0]) else {}
    guessed: list[str] = []
    for group in groups:
        some, others = _rest(group[0], found), _rest(group[1], found.values())
        for one in some:
            two = known.get(one)
            if two in others and _key(one) == _key(two):
                found[one] = two
        some, others = _rest(some, found), _rest(others, found.values())
        doubles, by_order = _doubles(some, others), _by_order(some, others)
        guessed += [
            _guess(one, two, others)
            for one, two in by_order.items()
            if _key(one) in doubles
        ]
        found |= by_order
    return [(one, found[one]) for one in old.layers if one in found], guessed


def _guess(one: Layer, two: Layer, others: list[Layer]) -> str:
    rest = [x.name for x in others if x is not two and _key(x) == _key(two)]
    text = f"{one.name} is {two.name}, by the order of calls alone"
    return f"{text}; or {' or '.join(rest)}" if rest else text


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


def _groups(
    old: list[Layer], new: list[Layer]
) -> Iterator[tuple[list[Layer], list[Layer]]]:
    """Layers that both networks call alike, as often as each other: to the letter, or
    else but for the numbers."""
    for exact in True, False:
        sides: list[dict[Any, list[Layer]]] = [{}, {}]
        for side, layers in zip(sides, (old, new), strict=True):
            for layer in layers:
                label = layer.label if exact else tuple(map(counted, layer.label))
                if label:
                    side.setdefault((*_key(layer), label), []).append(layer)
        for key, some in sides[0].items():
            others = sides[1].get(key, [])
            if len(some) == len(others):
                yield some, others
