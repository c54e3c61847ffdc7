"""What several commands need: checkpoints, sizes, and errors in one line."""

import argparse
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import math
from pathlib import Path
import traceback
from typing import Any

import jax
import numpy as np

from hk_bridge import _flax
from hk_bridge import _haiku
from hk_bridge import _layout
from hk_bridge import migrate
from hk_bridge.cli.options import EXTRAS
from hk_bridge.cli.options import CannotStart
from hk_bridge.migrate._place import found
from hk_bridge.migrate._remote import is_remote


def load(path: str, collections: Sequence[str] = (), step: int | None = None) -> Any:
    """The tree in a checkpoint that the user named."""
    with told():
        return migrate.load(path, collection=tuple(collections) or None, step=step)


@contextlib.contextmanager
def told() -> Iterator[None]:
    """In one line what is wrong with a file."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise CannotStart(str(error)) from error
    except ImportError as error:  # fsspec's, which says what to install
        if (error.name or "").partition(".")[0] in EXTRAS["checkpoint"]:
            raise
        raise CannotStart(str(error)) from error


def refuse(args: argparse.Namespace, given: Mapping[str, Any], why: str) -> None:
    """Refuses options that would say nothing, if they are given."""
    for option, value in given.items():
        if value is not None and value is not False and value != []:
            args.wrong(f"argument --{option}: not allowed {why}")


def seen(path: str, step: int | None = None) -> str:
    """The format of a checkpoint, and which of several it is."""
    if is_remote(path):
        return "copied from there"
    place = found(Path(path), step)
    inner = "" if place.path == Path(path) else f", {place.path}"
    return place.kind.name + inner


def says(error: BaseException) -> str:
    """An error in one line, as Python ends a traceback."""
    return f"{type(error).__name__}: {error}"


def raised_at(error: BaseException) -> str:
    """Where in the user's code an error was raised: the last line that is the user's.

    Empty if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_file() and not _is_ours(f.filename)]
    if not own:
        return ""
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno}: {own[-1].line})"


def _is_ours(file: str) -> bool:
    """Whether a file is of this package, or of those that it runs."""
    modules: list[Any] = [jax, np, _haiku.native, migrate, _flax.linen]
    folders = [Path(module.__file__).parent for module in modules]
    folders += [folder.parent for folder in folders[-2:]]  # what those are inside of
    return any(Path(file).is_relative_to(folder) for folder in folders)


def size_of(tree: Any) -> int:
    """How many bytes the arrays of `tree` take."""
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if hasattr(leaf, "shape")
    )


def readable(size: float) -> str:
    """A number of bytes.

    >>> readable(12), readable(102_400_000)
    ('12 B', '102.4 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def counted(count: int) -> str:
    """A number of leaves, in words."""
    return f"{count} {'leaf' if count == 1 else 'leaves'}"


def print_json(value: Any) -> None:
    """Prints `value` for a program to read."""
    print(json.dumps(value, indent=2))


def check_is_flaxs(path: Any, variables: Any, args: Any, instead: str) -> None:
    """Refuses `{"params": {module name: {name: array}}, "state": ...}`, as `convert`
    writes it, unless the user says what are collections."""
    if set(variables) != {"params", "state"} or args.collection:
        return
    if all(map(_layout.are_bundles, variables.values())):
        names = [name for part in variables.values() for name in part]
        held = f"it has {names[0]!r}" if names else "it is empty"
        raise CannotStart(
            f"{path} is in Haiku's layout already: {held}. {instead}, or, if it is "
            "Flax's, --collection params --collection state."
        )
