"""`hk_bridge match`: which leaf of Haiku is which leaf of Flax."""

import argparse
import contextlib
import sys
from typing import Any

import numpy as np

from hk_bridge import _haiku
from hk_bridge import migrate
from hk_bridge.cli.common import load
from hk_bridge.cli.common import print_json
from hk_bridge.cli.common import says
from hk_bridge.cli.options import CannotStart
from hk_bridge.cli.verify import build
from hk_bridge.cli.verify import check_target
from hk_bridge.cli.verify import in_a_line
from hk_bridge.cli.verify import named
from hk_bridge.cli.verify import random_input


def run(args: argparse.Namespace) -> int:
    """Finds which leaf of a Haiku network is which of a Flax module."""
    aside = contextlib.redirect_stdout(sys.stderr)
    with aside if args.json else contextlib.nullcontext():
        found = _found(args)
    if args.table is not None:
        found.table().save(args.table)
    if args.json:
        rows = [dict(row._asdict()) for row in found.table().rows]
        parting = None if found.parting is None else str(found.parting)
        print_json({"ok": found.ok, "parting": parting, "rows": rows})
    else:
        print(found)
    return 0 if found.ok else 1


def _found(args: argparse.Namespace) -> migrate.Match:
    variables = load(args.variables, args.collection, args.step)
    module = build(args.module, dict(args.config))
    with in_a_line():
        return migrate.match(
            module,
            variables,
            _transformed(args.network),
            *_inputs(args),
            flax_kwargs=dict(args.flax_kwarg),
            haiku_kwargs=dict(args.haiku_kwarg),
            **dict(args.kwarg),
        )


def _inputs(args: argparse.Namespace) -> list[Any]:
    rng = np.random.default_rng(0)
    return [random_input(rng, spec) for spec in args.input]


def _transformed(target: str) -> Any:
    """What `pkg.mod:name` is, transformed if it is a function."""
    check_target(target)
    try:
        made = named(target)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's code does
        raise CannotStart(f"{target} gives no network. {says(error)}") from error
    if hasattr(made, "init") and hasattr(made, "apply"):
        return made
    return _haiku.native.transform_with_state(made)
