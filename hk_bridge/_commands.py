"""The commands of `python -m hk_bridge` about checkpoints and modules."""

import argparse
import ast
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import importlib
import json
import math
import os
from pathlib import Path
import re
import sys
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import _abstract
from hk_bridge import _flax
from hk_bridge import _layout
from hk_bridge import _tables
from hk_bridge import migrate
from hk_bridge import testing
from hk_bridge.migrate._diff import Diff

EXTRAS = ("orbax", "safetensors", "tqdm")
_SHORT = {
    "bf": "bfloat",
    "f": "float",
    "c": "complex",
    "i": "int",
    "s": "int",
    "u": "uint",
}
_INPUT = re.compile(r"(?P<dtype>\w+)\[(?P<shape>(\d+(,\d+)*)?)\]")


class CannotStart(Exception):
    """A command has what it needs, but not as it needs it: told in one line."""


# Types of options.


class Input(NamedTuple):
    """What `f32[2,224,224,3]` says."""

    dtype: Any
    shape: tuple[int, ...]


def parse_input(text: str) -> Input:
    """The type of an option: an array, as JAX writes one.

    >>> parse_input("f32[2,3]"), parse_input("int32[]")
    (Input(dtype=dtype('float32'), shape=(2, 3)), Input(dtype=dtype('int32'), shape=()))
    """
    match = _INPUT.fullmatch(text.replace(" ", ""))
    if match is None:
        message = f"{text!r} is no array like 'f32[2,224,224,3]' or 'i32[8]'"
        raise argparse.ArgumentTypeError(message)
    short = re.fullmatch(r"([a-z]+)(\d+)", match["dtype"])
    name = _SHORT.get(short[1], short[1]) + short[2] if short else match["dtype"]
    name = {"pred": "bool"}.get(name, name)
    if name not in _dtypes():
        message = f"{match['dtype']!r} is no dtype of an input; f32 and i32 are two"
        raise argparse.ArgumentTypeError(message)
    sizes = [int(size) for size in match["shape"].split(",") if size]
    return Input(jnp.dtype(name), tuple(sizes))


def _dtypes() -> set[str]:
    """What inputs may be; 64 bits only where JAX has them."""
    names = {"bool", "bfloat16", "float16", "float32", "complex64"}
    names |= {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32)}
    if jax.config.read("jax_enable_x64"):
        names |= {"float64", "complex128", "int64", "uint64"}
    return names


def parse_setting(text: str) -> tuple[str, Any]:
    """The type of an option: `name=value`, the value a Python literal or else text.

    >>> parse_setting("features=(1, 2)"), parse_setting("dtype=bfloat16")
    (('features', (1, 2)), ('dtype', 'bfloat16'))
    """
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form name=value")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


# show


def show(args: argparse.Namespace) -> int:
    """Prints what is in a checkpoint, and where it goes in Haiku."""
    variables = _load(args.ckpt)
    try:
        _layout.to_haiku(variables, name=args.name)
    except ValueError as error:
        raise CannotStart(f"{args.ckpt} holds no variables. {error}") from None
    size = _bytes(variables)
    if args.json:
        leaves = [
            {**_leaf(args.name, collection, path, leaf), "bytes": _bytes(leaf)}
            for collection, path, leaf in _layout.leaves(variables)
        ]
        shown = {"checkpoint": args.ckpt, "name": args.name, "bytes": size}
        _print_json({**shown, "leaves": leaves})
        return 0
    rows = [("Flax", "array", "size", f"Haiku, as {args.name!r}")]
    for collection, tree in variables.items():
        rows += _tree(args.name, collection, (), tree)
    count = sum(1 for _ in _layout.leaves(variables))
    print(f"{args.ckpt}: {_counted(count)}, {_readable(size)}")
    print(_tables.table(rows))
    return 0


def _tree(
    name: str, collection: str, path: tuple[str, ...], value: Any
) -> Iterator[tuple[str, str, str, str]]:
    title = "  " * len(path) + (path[-1] if path else collection)
    size = _readable(_bytes(value))
    if not _layout.is_level(value):
        which = "params" if collection == _layout.PARAMS else "state"
        module_name, leaf_name = _layout.address(name, collection, path)
        where = f"{which}[{module_name!r}][{leaf_name!r}]"
        yield title, _abstract.describe(value), size, where
        return
    yield title, "" if value else "empty", size, ""
    for key, inner in value.items():
        yield from _tree(name, collection, (*path, key), inner)


def _leaf(
    name: str, collection: str, path: tuple[str, ...], leaf: Any
) -> dict[str, Any]:
    module_name, leaf_name = _layout.address(name, collection, path)
    return {
        "collection": collection,
        "path": list(path),
        "tree": "params" if collection == _layout.PARAMS else "state",
        "haiku_module": module_name,
        "haiku_name": leaf_name,
        "shape": list(leaf.shape) if hasattr(leaf, "shape") else None,
        "dtype": str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__,
    }


# convert


def convert(args: argparse.Namespace) -> int:
    """Writes a checkpoint in the other layout."""
    tree = _load(args.src)
    converted = _to_haiku(tree, args) if args.to == "haiku" else _to_flax(tree, args)
    try:
        migrate.save(args.dst, converted)
    except (OSError, ValueError) as error:
        raise CannotStart(str(error)) from error
    count, size = len(jax.tree.leaves(converted)), _bytes(converted)
    if args.json:
        done = {"src": args.src, "dst": args.dst, "to": args.to, "name": args.name}
        _print_json({**done, "leaves": count, "bytes": size})
    else:
        layout = "Haiku" if args.to == "haiku" else "Flax"
        print(f"{args.dst}: {_counted(count)}, {_readable(size)}, as {layout} has them")
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


# verify


def verify(args: argparse.Namespace) -> int:
    """Checks that a module is the same in Haiku as in Flax."""
    module = _build(args.module, dict(args.config))
    rng = np.random.default_rng(0)
    inputs = [_random(rng, spec) for spec in args.input]
    kwargs = dict(args.kwarg)
    variables = None if args.variables is None else _load(args.variables)
    if variables is not None:
        with _told():
            found = migrate.diff(variables, module, *inputs, name=args.name, **kwargs)
        if not found.ok:
            _print_diff(found, args)
            return 1
    with _told():
        report = _checked(
            module,
            *inputs,
            variables=variables,
            steps=args.steps,
            name=args.name,
            **kwargs,
        )
    if args.json:
        _print_json({"ok": report.ok, **dataclasses.asdict(report)})
    else:
        print(report)
    return 0 if report.ok else 1


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """In one line what Flax says about the inputs, or the module about itself."""
    try:
        yield
    except Exception as error:
        raise CannotStart(_says(error)) from error


def _checked(*args: Any, **kwargs: Any) -> testing.Report:
    """What `testing.check` found, whether it passed or not."""
    try:
        return testing.check(*args, **kwargs)
    except AssertionError as error:
        if not error.args or not isinstance(error.args[0], testing.Report):
            raise  # the module's own
        return error.args[0]


def _build(target: str, config: Mapping[str, Any]) -> Any:
    """The linen module that `pkg.mod:Class` and its arguments make."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise CannotStart(f"{target!r} is not of the form pkg.mod:Class")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        made: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            made = getattr(made, part)
        instance = isinstance(made, _flax.linen.Module)
        if not instance:
            is_class = isinstance(made, type)
            made = _flax.build(made, (), config) if is_class else made(**config)
        module, _ = _flax.unbound(made)
    except Exception as error:  # whatever the user's code does
        raise CannotStart(f"{target} gives no module. {_says(error)}") from error
    if instance and config:
        raise CannotStart(
            f"--config needs a class or a function, but {target} is an instance of "
            f"{type(module).__name__}. Leave --config out, or give its class."
        )
    return module


def _random(rng: np.random.Generator, spec: Input) -> Any:
    """Normal numbers, or whole ones from 0 to 7, which most embeddings have."""
    try:
        if jnp.issubdtype(spec.dtype, np.inexact):
            values: Any = rng.normal(size=spec.shape)
        else:
            values = rng.integers(2 if spec.dtype == bool else 8, size=spec.shape)
        return jnp.asarray(np.asarray(values).astype(spec.dtype))
    except Exception as error:  # too large, in the words of NumPy or JAX
        text = _abstract.describe(jax.ShapeDtypeStruct(spec.shape, spec.dtype))
        raise CannotStart(f"--input {text} cannot be made. {_says(error)}") from error


def _print_diff(found: Diff, args: argparse.Namespace) -> None:
    if args.json:
        _print_json({"ok": False, "diff": dataclasses.asdict(found)})
    else:
        print(f"{args.variables}: {found}")


# What all need.


def _load(path: str) -> Any:
    try:
        return migrate.load(Path(path))
    except (OSError, ValueError) as error:
        raise CannotStart(str(error)) from error


def _says(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _bytes(tree: Any) -> int:
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
        if hasattr(leaf, "shape")
    )


def _readable(size: float) -> str:
    """A number of bytes.

    >>> _readable(12), _readable(102_400_000)
    ('12 B', '102.4 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _counted(count: int) -> str:
    return f"{count} {'leaf' if count == 1 else 'leaves'}"


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))
