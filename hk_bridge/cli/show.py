"""`python -m hk_bridge show`: what is in a checkpoint, and where it goes in Haiku."""

import argparse
from collections.abc import Iterator
from typing import Any

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge import _tables
from hk_bridge._layout import Where
from hk_bridge.cli.common import CannotStart
from hk_bridge.cli.common import counted
from hk_bridge.cli.common import load
from hk_bridge.cli.common import print_json
from hk_bridge.cli.common import readable
from hk_bridge.cli.common import size_of


def show(args: argparse.Namespace) -> int:
    """Prints what is in a checkpoint, and where it goes in Haiku."""
    variables = load(args.ckpt)
    try:
        _layout.to_haiku(variables, name=args.name)
    except ValueError as error:
        raise CannotStart(f"{args.ckpt} holds no variables. {error}") from None
    size = size_of(variables)
    if args.json:
        leaves = [
            {**_leaf(args.name, where, leaf), "bytes": size_of(leaf)}
            for where, leaf in _layout.leaves(variables)
        ]
        shown = {"checkpoint": args.ckpt, "name": args.name, "bytes": size}
        print_json({**shown, "leaves": leaves})
        return 0
    rows = [("Flax", "array", "size", f"Haiku, as {args.name!r}")]
    for collection, tree in variables.items():
        rows += _tree(args.name, Where(collection, ()), tree)
    count = sum(1 for _ in _layout.leaves(variables))
    print(f"{args.ckpt}: {counted(count)}, {readable(size)}")
    print(_tables.table(rows))
    return 0


def _tree(name: str, at: Where, value: Any) -> Iterator[tuple[str, str, str, str]]:
    collection, path = at
    title = "  " * len(path) + (path[-1] if path else collection)
    size = readable(size_of(value))
    if not _layout.is_level(value):
        which = "params" if collection == _layout.PARAMS else "state"
        module_name, leaf_name = _layout.address(name, at)
        where = f"{which}[{module_name!r}][{leaf_name!r}]"
        yield title, _abstract.describe(value), size, where
        return
    yield title, "" if value else "empty", size, ""
    for key, inner in value.items():
        yield from _tree(name, Where(collection, (*path, key)), inner)


def _leaf(name: str, where: Where, leaf: Any) -> dict[str, Any]:
    module_name, leaf_name = _layout.address(name, where)
    return {
        "collection": where.collection,
        "path": list(where.path),
        "tree": "params" if where.collection == _layout.PARAMS else "state",
        "haiku_module": module_name,
        "haiku_name": leaf_name,
        "shape": list(leaf.shape) if hasattr(leaf, "shape") else None,
        "dtype": str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__,
    }
