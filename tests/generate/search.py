"""Drawing programs, running them, and telling what was found."""

from collections.abc import Callable
import dataclasses
import functools
import time
from typing import Any
from unittest import mock
import warnings

from flax import nnx
import flax.linen as nn
import flax.struct
import haiku as hk
import hypothesis
from hypothesis import HealthCheck
from hypothesis import Phase
import jax
import jax.numpy as jnp
import numpy as np

from . import call_laws
from . import cases
from . import compare
from . import cost_laws
from . import flax_laws
from . import haiku_laws
from . import hooks
from . import known
from . import nnx_laws
from . import reduce
from . import render
from . import shown_laws
from . import spec
from . import twin
from . import uses
from . import wrap_laws
from .laws import LAWS
from .spec import Program

MODULES = (
    *(cases, compare, hooks, uses, twin),
    *(flax_laws, call_laws, haiku_laws, shown_laws, wrap_laws, cost_laws, nnx_laws),
)
BATCH = 100


@functools.cache
def namespace() -> dict[str, Any]:
    """What a script imports and defines."""
    found: dict[str, Any] = {}
    for module in MODULES:
        found |= {k: v for k, v in vars(module).items() if not k.startswith("__")}
    found |= {"functools": functools, "jnp": jnp, "np": np, "hk": hk, "jax": jax}
    return found | {"nn": nn, "nnx": nnx, "flax": flax, "__name__": "generated"}


def failure(program: Program) -> Exception | None:
    """What the law raises for `program`, if anything."""
    scope = dict(namespace())
    del hooks.HOOKS[:], uses.CALLS[:], cases.LOG[:]
    cases.SETTINGS.width = 4
    cases.set_shift(0.5)
    try:
        with (
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            warnings.catch_warnings(),
            # For a leak JAX looks through all that is alive, which takes minutes.
            mock.patch("jax._src.core._why_alive", create=True, return_value=""),
        ):
            warnings.simplefilter("ignore")
            exec(compile(render.module(program), "<program>", "exec"), scope)
            exec(compile(render.law(program), "<law>", "exec"), scope)
    except cases.FailsNatively:
        return None
    except Exception as error:
        # A key of Haiku that is drawn inside of Flax's scan leaks, natively as well.
        leaks = isinstance(error, jax.errors.UnexpectedTracerError)
        return None if leaks and program.law == "own_leaves" else error
    return None


def script(program: Program) -> str:
    """A script that fails as `program` does, and holds no more than that takes."""
    shorter = dataclasses.replace(program, law="runs_in_haiku")
    if program.law == "like_haiku":
        errors = [failure(program), failure(shorter)]
        if errors[1] is not None and str(errors[0]) == str(errors[1]):
            program = shorter
    return render.script(program)


@dataclasses.dataclass
class Found:
    """What a search found.

    Attributes:
      programs: how many ran.
      first: for each known fault after how many, and the smallest program.
      count: how many programs had it.
      unexplained: a program that fails for no known reason, and its error.
    """

    programs: int = 0
    seconds: float = 0.0
    first: dict[str, tuple[int, Program]] = dataclasses.field(default_factory=dict)
    count: dict[str, int] = dataclasses.field(default_factory=dict)
    unexplained: tuple[Program, Exception] | None = None

    def add(self, program: Program, error: Exception) -> bool:
        """Notes a failure; whether it is of a known fault."""
        fault = known.explain(program, error)
        if fault is None:
            self.unexplained = (program, error)
            return False
        after, smallest = self.first.get(fault, (self.programs, program))
        if len(render.module(program)) < len(render.module(smallest)):
            smallest = program
        self.first[fault] = (after, smallest)
        self.count[fault] = self.count.get(fault, 0) + 1
        return True


def search(
    seed: int,
    programs: int | None = None,
    seconds: float | None = None,
    run: Callable[[Program], Exception | None] = failure,
) -> Found:
    """Runs new programs until there were enough, or one fails for no known reason."""
    found, start, batch = Found(), time.monotonic(), 0
    while found.unexplained is None:
        found.seconds = time.monotonic() - start
        left = BATCH if programs is None else min(BATCH, programs - found.programs)
        if left <= 0 or (seconds is not None and found.seconds >= seconds):
            return found
        _run_batch(found, seed * 10_000 + batch, left, run)
        batch += 1
    program, error = found.unexplained
    found.seconds = time.monotonic() - start

    def fails(candidate: Program) -> bool:
        other = run(candidate)
        same = type(other) is type(error)
        return same and known.explain(candidate, other) is None

    program = reduce.smallest(program, fails)
    found.unexplained = (program, run(program) or error)
    return found


def _run_batch(
    found: Found, seed: int, count: int, run: Callable[[Program], Exception | None]
) -> None:
    """Runs `count` programs."""

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(spec.programs(LAWS))
    def each(program: Program) -> None:
        if found.unexplained is not None:
            return
        found.programs += 1
        error = run(program)
        if error is not None:
            found.add(program, error)

    each()
