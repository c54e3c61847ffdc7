"""`hk_bridge verify`: whether a module is the same in Haiku as in Flax."""

import argparse
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import importlib
import os
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import _flax
from hk_bridge import migrate
from hk_bridge import testing
from hk_bridge.cli.common import load
from hk_bridge.cli.common import print_json
from hk_bridge.cli.common import raised_at
from hk_bridge.cli.common import refuse
from hk_bridge.cli.common import says
from hk_bridge.cli.options import CannotStart
from hk_bridge.cli.options import Input
from hk_bridge.migrate._diff import Diff


def run(args: argparse.Namespace) -> int:
    """Checks that a module is the same in Haiku as in Flax."""
    # What the module prints itself is no JSON.
    aside = contextlib.redirect_stdout(sys.stderr)
    with aside if args.json else contextlib.nullcontext():
        found = _found(args)
    if isinstance(found, Diff):
        _print_diff(found, args)
        return 1
    if args.json:
        print_json({"ok": found.ok, **dataclasses.asdict(found)})
    else:
        print(found)
    return 0 if found.ok else 1


def _found(args: argparse.Namespace) -> Diff | testing.Report:
    """What differs in the checkpoint, or else in the module."""
    # Before the user's folder can be looked in for modules.
    variables = None
    if args.variables is None:
        unused = {"collection": args.collection, "step": args.step}
        refuse(args, unused, "without --variables")
    else:
        variables = load(args.variables, args.collection, args.step)
    module = build(args.module, dict(args.config))
    rng = np.random.default_rng(0)
    inputs = [random_input(rng, spec) for spec in args.input]
    kwargs = dict(args.kwarg)
    if variables is not None:
        with in_a_line():
            found = migrate.diff(variables, module, *inputs, name=args.name, **kwargs)
        if not found.ok:
            return found
    with in_a_line():
        return _checked(
            module,
            *inputs,
            variables=variables,
            steps=args.steps,
            name=args.name,
            **kwargs,
        )


@contextlib.contextmanager
def in_a_line() -> Iterator[None]:
    """In one line what Flax says about the inputs, or the module about itself."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # code that exits has checked nothing
        raise CannotStart(says(error) + raised_at(error)) from error


def _checked(*args: Any, **kwargs: Any) -> testing.Report:
    """What `testing.check` found, whether it passed or not."""
    try:
        return testing.check(*args, **kwargs)
    except AssertionError as error:
        if not error.args or not isinstance(error.args[0], testing.Report):
            raise  # the module's own
        return error.args[0]


def named(target: str) -> Any:
    """What `pkg.mod:name` is."""
    module_name, _, attribute = target.partition(":")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    made: Any = importlib.import_module(module_name)
    for part in attribute.split("."):
        made = getattr(made, part)
    return made


def check_target(target: str) -> None:
    """Refuses what is not of the form `pkg.mod:name`."""
    module_name, colon, attribute = target.partition(":")
    if not colon or not module_name or not attribute:
        raise CannotStart(f"{target!r} is not of the form pkg.mod:Class")


def build(target: str, config: Mapping[str, Any]) -> Any:
    """The module that `pkg.mod:Class` and its arguments make.

    One of NNX has the values that come of `nnx.Rngs(0)`."""
    check_target(target)
    try:
        made = named(target)
        instance = isinstance(made, _flax.linen.Module) or _flax.is_nnx(made)
        if _flax.is_nnx_class(made):
            seed = _flax.streams(made, 0, None, True)
            made = _flax.build_nnx(made, (), config, seed, True)
        elif not instance:
            is_class = isinstance(made, type)
            made = _flax.build(made, (), config) if is_class else made(**config)
        module, _ = _flax.unbound(made)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's code does
        text = says(error) + raised_at(error)
        raise CannotStart(f"{target} gives no module. {text}") from error
    if instance and config:
        raise CannotStart(
            f"--config needs a class or a function, but {target} is an instance of "
            f"{type(module).__name__}. Leave --config out, or give its class."
        )
    return module


def random_input(rng: np.random.Generator, spec: Input) -> Any:
    """Normal numbers, or whole ones from 0 to 7, which most embeddings have."""
    dtype = jnp.dtype(spec.dtype)
    text = f"{dtype}[{','.join(map(str, spec.shape))}]"
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise CannotStart(
            f"--input {text} has 64 bits, which JAX has not unless it is told to: set "
            "JAX_ENABLE_X64=1, or write it with 32."
        )
    try:
        if jnp.issubdtype(dtype, np.inexact):
            values: Any = rng.normal(size=spec.shape)
        else:
            values = rng.integers(2 if spec.dtype == "bool" else 8, size=spec.shape)
        return jnp.asarray(np.asarray(values).astype(dtype))
    except Exception as error:  # too large, in the words of NumPy or JAX
        raise CannotStart(f"--input {text} cannot be made. {says(error)}") from error


def _print_diff(found: Diff, args: argparse.Namespace) -> None:
    if args.json:
        print_json({"ok": False, "diff": dataclasses.asdict(found)})
    else:
        print(f"{args.variables}: {found}")
