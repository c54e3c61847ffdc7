"""Drawing programs, running them, and telling what was found."""

from collections import Counter
from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import re
import time
import types
from typing import Any
import warnings

import flax.linen as nn
import flax.struct
import haiku as hk
import hypothesis
from hypothesis import HealthCheck
from hypothesis import Phase
import jax
import jax.numpy as jnp
import numpy as np

from . import cases
from . import compare
from . import flax_laws
from . import haiku_laws
from . import hooks
from . import render
from . import spec
from . import twin
from . import uses
from .laws import LAWS

MODULES = (cases, compare, hooks, uses, twin, flax_laws, haiku_laws)


def namespace() -> dict[str, Any]:
    """What a script imports and defines."""
    found: dict[str, Any] = {}
    for module in MODULES:
        found |= {k: v for k, v in vars(module).items() if not k.startswith("__")}
    found |= {"functools": functools, "jnp": jnp, "np": np, "hk": hk, "jax": jax}
    return found | {"nn": nn, "flax": flax}


def failure(program: spec.Program) -> Exception | None:
    """What the law raises for `program`, if anything."""
    scope = {**namespace(), "__name__": "generated"}
    try:
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            exec(compile(render.module(program), "<program>", "exec"), scope)
            exec(compile(render.law(program), "<law>", "exec"), scope)
    except cases.FailsNatively:
        return None
    except Exception as error:
        return error
    return None
