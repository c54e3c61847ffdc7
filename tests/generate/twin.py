"""A plain Haiku module with the leaves of a Flax module: what Haiku defines."""

from typing import Any

import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp

from .cases import Case
from .cases import FailsNatively
from .cases import bump
from .cases import total
from .cases import zeros
from .compare import Run
from .compare import open_boxes
from .compare import trace
from .uses import call_back


def is_level(value: Any) -> bool:
    """Whether `value` is a level of Flax's trees, not a leaf."""
    return type(value) is dict and all(type(key) in (str, int) for key in value)


class Outer(nn.Module):
    """The module, and what it calls back at its end."""

    part: Any

    def __call__(self, x: Any) -> Any:
        return call_back(self.part(x))


def outer(case: Case) -> Case:
    """`case` within `Outer`."""

    def make(train: bool = True, variant: int = 0) -> Any:
        return Outer(case.make(train, variant))

    return Case(make, case.streams, case.sown, None, case.asks_haiku)


class Twin(hk.Module):
    """Makes and reads the leaves of `tree`, and writes those that Flax writes.

    Args:
      tree: `{collection: nested dict}` of shapes.
      written: `(collection, *path)` of the leaves that apply writes.
    """

    def __init__(self, tree: Any, written: Any, name: str = "net"):
        super().__init__(name=name)
        self.tree, self.written = tree, written

    def __call__(self, x: Any) -> Any:
        for collection, tree in self.tree.items():
            if collection == "params":
                x = use_params(tree, x)
            else:
                x = Level(collection, tree, self.written, (collection,))(x)
        return call_back(x)


class Level(hk.Module):
    """One level of the tree."""

    def __init__(self, name: str, tree: Any, written: Any, path: Any):
        super().__init__(name=str(name))
        self.tree, self.written, self.path = tree, written, path

    def __call__(self, x: Any) -> Any:
        if self.path is None:
            return use_params(self.tree, x)
        for name, spec in self.tree.items():
            path = (*self.path, name)
            if is_level(spec):
                x = Level(name, spec, self.written, path)(x)
            else:
                written = path in self.written
                change = (same_value if is_same(path) else bump) if written else None
                x = x + use_state(str(name), spec, change)
        return x


def use_params(tree: Any, x: Any) -> Any:
    for name, spec in tree.items():
        if is_level(spec):
            x = Level(name, spec, (), None)(x)
        elif hasattr(spec, "shape"):
            is_key = jnp.issubdtype(spec.dtype, jax.dtypes.prng_key)
            init = (lambda *_, spec=spec: zeros(spec)) if is_key else jnp.zeros
            x = x + total(hk.get_parameter(name, spec.shape, spec.dtype, init))
    return x


def is_same(path: Any) -> bool:
    """Whether a leaf is of a variable that is written with what it holds."""
    return any(str(part).startswith("same") for part in path)


def same_value(value: Any) -> Any:
    return value


def use_state(name: str, spec: Any, change: Any) -> Any:
    init = lambda *_: jax.tree.map(zeros, spec)
    shape, dtype = getattr(spec, "shape", ()), getattr(spec, "dtype", jnp.float32)
    value = hk.get_state(name, shape, dtype, init)
    if change is same_value or (change is not None and not hk.running_init()):
        hk.set_state(name, change(value))
    return total(value)


def twin(case: Case, written: Any) -> Any:
    """What builds the twin."""
    tree = open_boxes(case.specs)
    if any(type(part) is int or "/" in part for part in names_in(tree)):
        raise FailsNatively  # no Haiku module has such a name
    return lambda name="net": Twin(tree, written, name)


def names_in(tree: Any) -> set[Any]:
    """The names at all levels of `tree`."""
    found = set(tree)
    return found.union(*(names_in(v) for v in tree.values() if is_level(v)))


def changes(case: Case, run: Run) -> dict[Any, str]:
    """How native apply changes each leaf of state: `read`, `same`, `bump`, `written`.

    `same` is written with what was read. `run` is of `(output, state)` by
    `(variables, rngs)`."""
    state = {c: t for c, t in open_boxes(case.specs).items() if c != "params"}

    def bumped(variables: Any, rngs: Any) -> Any:
        after = {c: t for c, t in open_boxes(variables).items() if c != "params"}
        return 0.0, bump(after)

    higher = trace(bumped, case.specs, case.rngs())
    found: dict[Any, str] = {}

    def walk(tree: Any, path: Any) -> None:
        for name, spec in tree.items():
            if is_level(spec):
                walk(spec, (*path, name))
            else:
                found[*path, name] = change(run, higher, (*path, name))

    walk(state, ())
    return found


def change(run: Run, higher: Run, path: Any) -> str:
    where = "".join(f"[{part!r}]" for part in path)

    def of(found: Any, prefix: str) -> list[Any]:
        return [v for k, v in found.items() if k.startswith(prefix + where)]

    after = [number for number, *_ in of(run.outputs, "[1]")]
    if after == of(run.inputs, "[0]"):
        return "same" if is_same(path) else "read"
    bumped = [number for number, *_ in of(higher.outputs, "[1]")]
    return "bump" if after == bumped else "written"
