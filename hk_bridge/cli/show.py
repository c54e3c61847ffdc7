"""`hk_bridge show`: what is in a checkpoint, and where it goes in Haiku."""

import argparse
from collections.abc import Iterator
from typing import Any

from hk_bridge import _abstract
from hk_bridge import _layout
from hk_bridge import _tables
from hk_bridge import migrate
from hk_bridge._layout import Where
from hk_bridge.cli.common import check_is_flaxs
from hk_bridge.cli.common import counted
from hk_bridge.cli.common import load
from hk_bridge.cli.common import print_json
from hk_bridge.cli.common import readable
from hk_bridge.cli.common import refuse
from hk_bridge.cli.common import seen
from hk_bridge.cli.common import size_of
from hk_bridge.cli.common import told
from hk_bridge.cli.options import CannotStart


def run(args: argparse.Namespace) -> int:
    """Prints what is in a checkpoint, and where it goes in Haiku."""
    if args.haiku:
        return _show_haikus(args)
    variables = load(args.ckpt, args.collection, args.step)
    check_is_flaxs(args.ckpt, variables, args, "Write --haiku to show it")
    try:
        names = args.collection or None
        _layout.to_haiku(variables, name=args.name, collections=names)
    except ValueError as error:
        raise CannotStart(f"{args.ckpt} holds no variables. {error} {_HINT}") from None
    leaves = list(_layout.leaves(variables))
    if args.json:
        _print_json(args, [_leaf(args.name, where, leaf) for where, leaf in leaves])
        return 0
    rows = [("Flax", "array", "size", f"Haiku, as {args.name!r}")]
    for collection, tree in variables.items():
        rows += _tree(args.name, Where(collection, ()), tree)
    _print(args, rows, [leaf for _, leaf in leaves])
    return 0


_HINT = (
    "On the command line, write --collection params, or --haiku for a checkpoint of "
    "Haiku's own."
)


def _show_haikus(args: argparse.Namespace) -> int:
    """The same of a checkpoint of a Haiku code base."""
    refuse(args, {"collection": args.collection}, "with --haiku")
    with told():
        trees = migrate.load_haiku(args.ckpt, step=args.step)
    found = [
        (which, module, name, leaf)
        for which, tree in zip(("params", "state"), trees, strict=True)
        for module, bundle in tree.items()
        for name, leaf in bundle.items()
    ]
    if args.json:
        rows = [_haikus_leaf(*row) for row in found]
        _print_json(args, rows)
        return 0
    table = [("Haiku", "array", "size")]
    for which, module, name, leaf in found:
        where = f"{which}[{module!r}][{name!r}]"
        table.append((where, _abstract.describe(leaf), readable(size_of(leaf))))
    _print(args, table, [row[-1] for row in found])
    return 0


def _print(args: argparse.Namespace, rows: Any, leaves: Any) -> None:
    size, kind = readable(size_of(leaves)), seen(args.ckpt, args.step)
    print(_tables.printable(f"{args.ckpt} ({kind}): {counted(len(leaves))}, {size}"))
    print(_tables.table(rows))


def _print_json(args: argparse.Namespace, leaves: list[dict[str, Any]]) -> None:
    shown = {"checkpoint": args.ckpt, "name": args.name}
    shown["format"] = seen(args.ckpt, args.step)
    size = sum(leaf["bytes"] for leaf in leaves)
    print_json({**shown, "bytes": size, "leaves": leaves})


def _tree(name: str, at: Where, value: Any) -> Iterator[tuple[str, str, str, str]]:
    collection, path = at
    title = "  " * len(path) + str(path[-1] if path else collection)
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
        **_haikus_leaf(
            "params" if where.collection == _layout.PARAMS else "state",
            module_name,
            leaf_name,
            leaf,
        ),
    }


def _haikus_leaf(tree: str, module: str, name: str, leaf: Any) -> dict[str, Any]:
    return {
        "tree": tree,
        "haiku_module": module,
        "haiku_name": name,
        "shape": list(leaf.shape) if hasattr(leaf, "shape") else None,
        "dtype": str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__,
        "bytes": size_of(leaf),
    }
