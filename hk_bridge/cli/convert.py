"""`hk_bridge convert`: a checkpoint in the other layout."""

import argparse
from pathlib import Path
from typing import Any

import jax

from hk_bridge import _layout
from hk_bridge import migrate
from hk_bridge._tables import printable
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
from hk_bridge.migrate._remote import is_remote
from hk_bridge.migrate.formats import WRITTEN
from hk_bridge.migrate.formats import for_saving


def run(args: argparse.Namespace) -> int:
    """Writes a checkpoint in the other layout."""
    _check_options(args)
    _check_target(args.src, args.dst)
    converted: dict[str, Any]
    left_out = 0
    if args.haiku:
        with told():
            params, state = migrate.load_haiku(args.src, step=args.step)
            migrate.save_haiku(args.dst, params, state, names=args.names)
        converted = {"params": params, "state": state}
    elif args.to == "haiku":
        params, state = _to_haiku(load(args.src, args.collection, args.step), args)
        converted = {"params": params, "state": state}
        with told():
            migrate.save_haiku(args.dst, params, state, names=args.names)
    else:
        converted, left_out = _to_flax(args)
        with told():
            migrate.save(args.dst, converted)
    count, size = len(jax.tree.leaves(converted)), size_of(converted)
    source, target = seen(args.src, args.step), for_saving(Path(args.dst)).name
    if args.json:
        done = {"src": args.src, "dst": args.dst, "to": args.to, "name": args.name}
        done |= {"read": source, "written": target}
        print_json({**done, "leaves": count, "bytes": size, "left_out": left_out})
    else:
        layout = "Haiku" if args.to == "haiku" else "Flax"
        print(printable(f"{args.src}: {source}"))
        line = f"{counted(count)}, {readable(size)}, as {layout} has them"
        print(printable(f"{args.dst}: {target}, {line}"))
        if left_out:
            print(f"{counted(left_out)} of other modules than {args.name!r} left out")
    return 0


def _check_options(args: argparse.Namespace) -> None:
    """Refuses options that would say nothing."""
    if args.haiku:
        to_flax = args.to == "flax"
        unused = {"name": args.name, "to": to_flax, "collection": args.collection}
        refuse(args, unused, "with --haiku, by which the format changes alone")
    elif args.name is None:
        args.wrong("the following arguments are required: --name")
    elif args.to == "flax":
        unused = {"collection": args.collection, "names": args.names != "hk_bridge"}
        refuse(args, unused, "with --to flax")


def _check_target(src: str, dst: str) -> None:
    """Refuses a target that is the source, or of no format."""
    if is_remote(dst):
        return
    target = Path(dst)
    source = None if is_remote(src) else Path(src).resolve()
    if source is not None and source in (target.resolve(), *target.resolve().parents):
        raise CannotStart(f"{dst} is the source, or in it. Choose a new name.")
    if target.suffix and not for_saving(target).suffixes:
        raise CannotStart(
            f"{dst} has the suffix {target.suffix!r}, which tells no format. Give it "
            f"one of {', '.join(WRITTEN)}, or none for an Orbax directory."
        )


def _to_haiku(variables: Any, args: argparse.Namespace) -> Any:
    check_is_flaxs(args.src, variables, args, "Write --to flax to convert it back")
    try:
        picked = args.collection or None
        return _layout.to_haiku(variables, name=args.name, collections=picked)
    except ValueError as error:
        raise CannotStart(f"{args.src} holds no variables. {error} {_HINT}") from None


_HINT = "On the command line, write --collection params."


def _to_flax(args: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """The variables, and how many leaves are of other modules."""
    with told():
        params, state = migrate.load_haiku(args.src, step=args.step)
    try:
        variables = _layout.to_flax(params, state, name=args.name)
    except ValueError as error:
        raise CannotStart(f"{args.src} has nothing of that name. {error}") from None
    leaves = [leaf for tree in (params, state) for b in tree.values() for leaf in b]
    return variables, len(leaves) - len(list(_layout.leaves(variables)))
