"""`python -m hk_bridge convert`: a checkpoint in the other layout."""

import argparse
from typing import Any

import jax

from hk_bridge import _layout
from hk_bridge import migrate
from hk_bridge.cli.common import CannotStart
from hk_bridge.cli.common import counted
from hk_bridge.cli.common import load
from hk_bridge.cli.common import print_json
from hk_bridge.cli.common import readable
from hk_bridge.cli.common import size_of


def convert(args: argparse.Namespace) -> int:
    """Writes a checkpoint in the other layout."""
    tree = load(args.src)
    converted = _to_haiku(tree, args) if args.to == "haiku" else _to_flax(tree, args)
    try:
        migrate.save(args.dst, converted)
    except (OSError, ValueError) as error:
        raise CannotStart(str(error)) from error
    count, size = len(jax.tree.leaves(converted)), size_of(converted)
    if args.json:
        done = {"src": args.src, "dst": args.dst, "to": args.to, "name": args.name}
        print_json({**done, "leaves": count, "bytes": size})
    else:
        layout = "Haiku" if args.to == "haiku" else "Flax"
        print(f"{args.dst}: {counted(count)}, {readable(size)}, as {layout} has them")
    return 0


def _to_haiku(variables: Any, args: argparse.Namespace) -> dict[str, Any]:
    if _is_haikus(variables) and len(variables) == 2:  # `convert` writes both
        names = [name for part in variables.values() for name in part if "/" in name]
        if names:
            raise CannotStart(
                f"{args.src} is in Haiku's layout already: it has {names[0]!r}. Write "
                "--to flax to convert it back."
            )
    try:
        params, state = _layout.to_haiku(variables, name=args.name)
    except ValueError as error:
        raise CannotStart(f"{args.src} holds no variables. {error}") from None
    return {"params": params, "state": state}


def _to_flax(tree: Any, args: argparse.Namespace) -> dict[str, Any]:
    if not _is_haikus(tree):
        raise CannotStart(
            f"{args.src} is no Haiku checkpoint: params and state, each "
            "{module name: {name: array}}, were expected. Give one that "
            "'convert --to haiku' wrote."
        )
    try:
        variables = _layout.to_flax(
            tree.get("params"), tree.get("state"), name=args.name
        )
    except ValueError as error:
        raise CannotStart(str(error)) from None
    if not variables:
        names = sorted({name.split("/")[0] for part in tree.values() for name in part})
        has = f"It has {', '.join(names[:8])}" if names else "It is empty"
        raise CannotStart(f"{args.src} has nothing of the name {args.name!r}. {has}.")
    return variables


def _is_haikus(tree: Any) -> bool:
    """Whether `tree` is `{"params": {module name: {name: array}}, "state": ...}`."""
    parts = tree.values()
    return set(tree) <= {"params", "state"} and all(map(_layout.are_bundles, parts))
