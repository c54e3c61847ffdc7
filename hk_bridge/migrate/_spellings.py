"""How Haiku's code bases spell the names of leaves in flat files."""

import re
from typing import Any

from hk_bridge import _layout
from hk_bridge.migrate._flat import named
from hk_bridge.migrate._flat import nested
from hk_bridge.migrate._format import Flat
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._format import add_once
from hk_bridge.migrate._format import cannot_hold

# What stands between the module and the leaf.
_JOINTS = {"alphafold": "//", "plain": "/", "dotted": "."}
_DOTTED = re.compile(r"((.*/)?[A-Za-z_]\w*|~)\.[^./]+", re.ASCII | re.DOTALL)
_FLAXS = "its names are those of Flax variables, which hk_bridge.migrate.load reads"
_ROOTS = ("params:", "state:")


def read(flat: Flat) -> tuple[Any, Any]:
    """`(params, state)` of flat names, by the spelling that all of them have."""
    if flat.separator is not None:
        raise ValueError(_FLAXS)
    if any(name.startswith(_ROOTS) for name in flat):
        return _weathernext(flat)
    if flat and all("//" in name for name in flat):
        return _joint(flat, "//"), {}
    if all(name.startswith(("params/", "state/")) for name in flat):
        tree = _ours(flat)
        if tree is not None:
            return tree.get("params", {}), tree.get("state", {})
    if flat and all(map(_DOTTED.fullmatch, flat)):
        return _joint(flat, "."), {}
    if flat and {name.partition("/")[0] for name in flat} <= _layout.FLAXS_OWN:
        raise ValueError(_FLAXS)
    return _joint(flat, "/"), {}


def _ours(flat: Flat) -> Tree | None:
    """The tree that `save_haiku` wrote, if it is one."""
    try:
        tree = nested(flat)
    except ValueError:
        return None
    return tree if all(map(_layout.are_bundles, tree.values())) else None


def _weathernext(flat: Flat) -> tuple[Tree, Tree]:
    """`params:module:name`; what does not start so is none of the weights."""
    found: tuple[Tree, Tree] = ({}, {})
    for name, leaf in flat.items():
        for root, tree in zip(_ROOTS, found, strict=True):
            if name.startswith(root):
                module, colon, last = name[len(root) :].rpartition(":")
                if not colon:
                    raise ValueError(f"{name!r} is not of the form {root}module:name")
                add_once(tree.setdefault(module, {}), last, leaf)
    return found


def _joint(flat: Flat, joint: str) -> Tree:
    tree: Tree = {}
    for name, leaf in flat.items():
        module, joined, last = name.rpartition(joint)
        *above, end = module.split("/")
        own = end.startswith("~") and module != "~"  # which has what is in no module
        if not joined or not last or own or "" in (*above, end):
            raise ValueError(f"{name!r} is not of the form module{joint}name")
        add_once(tree.setdefault(module, {}), last, leaf)
    return tree


def check_names(names: Any) -> None:
    """Refuses what is no spelling."""
    known = ["hk_bridge", *_JOINTS, "weathernext"]
    if names not in known:
        raise ValueError(f"names= is one of {known}, not {names!r}.")


def written(tree: Tree, kind: Format, names: str) -> Flat:
    """The leaves of `{"params": ..., "state": ...}` by flat names."""
    if names == "hk_bridge":
        return named(tree)
    flat = Flat()
    for which, bundles in tree.items():
        for module, bundle in bundles.items():
            for last, leaf in bundle.items():
                joint = ":" if names == "weathernext" else _JOINTS[names]
                root = f"{which}:" if names == "weathernext" else ""
                flat[f"{root}{module}{joint}{last}"] = leaf
    _check_written(flat, tree, kind, names)
    return flat


def _check_written(flat: Flat, tree: Tree, kind: Format, names: str) -> None:
    """Refuses what would be read back as something else."""
    try:
        found = read(flat)
    except ValueError:
        found = {}, {}
    for which, back in zip(("params", "state"), found, strict=True):
        for module, bundle in tree[which].items():
            held = back.get(module, {})
            for last, leaf in bundle.items():
                if held.get(last) is not leaf:
                    what = f"a name or state that names={names!r} has no place for"
                    raise cannot_hold(kind, (which, module, last), what)
            if not bundle:
                what = (
                    f"a module without leaves, which names={names!r} has no place for"
                )
                raise cannot_hold(kind, (which, module), what)
