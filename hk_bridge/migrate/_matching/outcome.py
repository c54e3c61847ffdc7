"""What a search came to: a table, and a proof of it, or where the networks part."""

from collections.abc import Callable
from collections.abc import Mapping
import gc
from typing import Any
from typing import NamedTuple

from hk_bridge.migrate._matching.claims import Claims
from hk_bridge.migrate._matching.claims import claims
from hk_bridge.migrate._matching.guesses import fill
from hk_bridge.migrate._matching.leaf_table import UNKNOWN_MARK
from hk_bridge.migrate._matching.leaf_table import LeafTable
from hk_bridge.migrate._matching.parting import Parting
from hk_bridge.migrate._matching.parting import parting
from hk_bridge.migrate._matching.proof import CLOSER
from hk_bridge.migrate._matching.proof import Proof
from hk_bridge.migrate._matching.proof import prove
from hk_bridge.migrate._matching.rows import rows_of
from hk_bridge.migrate._matching.solve import Solved
from hk_bridge.migrate._matching.trace import Given
from hk_bridge.migrate._matching.trace import Network

Bundles = dict[str, dict[str, Any]]
# How close two networks have to be that are the same in all but their inner values.
_SURE = 1e-6


class Outcome(NamedTuple):
    """The fields of a match."""

    table: LeafTable
    params: Bundles
    state: Bundles
    parting: Parting | None
    proof: Proof | None
    missing: tuple[str, ...]
    ambiguous: tuple[tuple[str, ...], ...]
    tried: int


class _Found(NamedTuple):
    table: LeafTable
    claims: Claims
    lacking: set[str]

    @classmethod
    def of(cls, solved: Solved) -> "_Found":
        held = solved.search.held
        table = LeafTable(tuple(rows_of(solved.haiku, solved.flax.side, held)))
        lacking = {row.haiku for row in table.rows if row.flax == UNKNOWN_MARK}
        return cls(table, claims(solved), lacking)


def outcome(
    search: Callable[[bool], Solved],
    flax: Network,
    haiku: Network,
    given: Given,
    variables: Mapping[str, Any],
) -> Outcome:
    """The proof of what was found; it is what counts.

    Where inner values part, the same may be computed in another way: a mean before or
    after a layer, the terms of a sum in another order. So what was found by form and
    place is proven, too, though more strictly, and only then said to be another."""
    solved = search(False)
    found, read = _Found.of(solved), _read(solved)
    faults, tried = solved.search.faults, solved.search.tried
    where, guessed = None, None
    if faults:
        where = parting(solved, faults[0])
        fill(solved, read)
        guessed = _Found.of(solved)
    ambiguous = _ambiguous(solved)
    del solved
    gc.collect()  # parts of a search hold each other, and the weights
    proof, trees = None, None
    if guessed is not None and not guessed.lacking & read:
        made = guessed.table.to_haiku(variables)
        sides = guessed.claims, guessed.table
        sure = prove(flax, haiku, *sides, given, made, most=_SURE)
        if sure is not None:
            proof, found, where, trees = sure, guessed, None, made
    if trees is None:
        trees = found.table.to_haiku(variables)
    if not faults and not found.lacking & read:
        proof = prove(flax, haiku, found.claims, found.table, given, trees)
    if proof is not None and proof.small > CLOSER:
        solved = search(True)
        faults = solved.search.faults
        where = parting(solved, faults[0]) if faults else None
    missing = tuple(sorted(found.lacking))
    return Outcome(found.table, *trees, where, proof, missing, ambiguous, tried)


def _read(solved: Solved) -> set[str]:
    """The leaves of Haiku on which what it returns depends."""
    flat = solved.haiku.flat
    ends = [
        value
        for value, path in zip(flat.outputs, solved.haiku.outputs, strict=True)
        if path.startswith("['output']")
    ]
    seen, todo = set(ends), list(ends)
    while todo:
        step = flat.makers[todo.pop()]
        new = [x for x in (step.ins if step is not None else ()) if x not in seen]
        seen |= set(new)
        todo += new
    names = zip(solved.haiku.names, flat.weights, strict=True)
    return {name for name, number in names if number in seen}


def _ambiguous(solved: Solved) -> tuple[tuple[str, ...], ...]:
    """The leaves of Flax that would have done as well, in groups."""
    terms, names = solved.flax.side.terms, solved.flax.side.names
    groups: dict[frozenset[str], None] = {}
    for option, other in solved.search.tied:
        group = set()
        for some in (option, other):
            for _, unit in some:
                ids = unit.ids
                ids = ids[ids >= 0]
                group |= {
                    names[terms.whose(int(number))] for number in (ids[0], ids[-1])
                }
        groups[frozenset(group)] = None
    return tuple(tuple(sorted(group)) for group in groups if len(group) > 1)
