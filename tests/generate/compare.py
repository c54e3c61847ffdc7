"""Running a function as a program: what it computes, what its code saw, its error."""

from collections.abc import Callable
import dataclasses
from typing import Any

from flax.core import meta
import jax
from jax.interpreters import partial_eval

from hk_bridge._proof import program as _program

from .cases import LOG
from .numbering import TRANSPARENT
from .numbering import number


@dataclasses.dataclass
class Run:
    """A traced function.

    Attributes:
      outputs: by path in what it returned, the number and the type of each array.
      inputs: the same of its arguments.
      saw: what the code of the module saw.
      error: what it raised.
      program: what JAX traced.
    """

    outputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)
    saw: list[Any] = dataclasses.field(default_factory=list)
    error: Exception | None = None
    program: Any = None


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves of `tree` by path; empty dicts do not count."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in found}


def trace(function: Callable[..., Any], *args: Any) -> Run:
    """Traces `function(*args)`; `args` are trees of arrays or shapes."""
    run = Run()
    del LOG[:]
    try:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    except Exception as error:
        run.error = error
        return run
    run.saw, run.program = list(LOG), closed
    given = {path: ("in", path) for path in by_path(args)}
    numbers = number(closed.jaxpr, closed.consts, list(given.values()))
    outputs = by_path(shapes)
    assert len(outputs) == len(numbers)
    run.outputs = {
        path: (n, spec.shape, spec.dtype)
        for n, (path, spec) in zip(numbers, outputs.items(), strict=True)
    }
    run.inputs = given
    return run


def same(ours: Run, theirs: Run) -> None:
    """Both raise the same, or compute the same programs and saw the same."""
    if theirs.error is not None or ours.error is not None:
        same_error(ours.error, theirs.error)
        return
    extra, missing = (
        sorted(set(a) - set(b))
        for a, b in ((ours.outputs, theirs.outputs), (theirs.outputs, ours.outputs))
    )
    assert not extra, f"not in Flax's: {extra}, but missing: {missing}"
    assert not missing, f"missing: {missing}"
    shapes = {p: (ours.outputs[p][1:], theirs.outputs[p][1:]) for p in ours.outputs}
    differ = {p: pair for p, pair in shapes.items() if pair[0] != pair[1]}
    assert not differ, f"other types: {differ}"
    # What is jitted may not run again.
    again = len(ours.saw) != len(theirs.saw)
    assert again or ours.saw == theirs.saw, (
        f"the code saw {ours.saw}, natively {theirs.saw}"
    )
    differ = _program.difference(
        ours.program,
        theirs.program,
        outputs=lambda i: list(ours.outputs)[i],
        transparent=TRANSPARENT,
    )
    assert differ is None, f"another program: {differ}"


def same_error(ours: Exception | None, theirs: Exception | None) -> None:
    """Both are of one type."""
    if theirs is None:
        assert ours is not None
        raise AssertionError(f"raises, natively not: {tell(ours)}") from ours
    assert ours is not None, f"does not raise, natively {tell(theirs)}"
    message = f"raises {tell(ours)}, natively {tell(theirs)}"
    assert type(ours) is type(theirs), message


def tell(error: Exception) -> str:
    notes = getattr(error, "__notes__", [])
    return f"{type(error).__name__}: " + " | ".join([str(error)[:300], *notes])


def depends(run: Run, output: str, given: str) -> bool:
    """Whether what `run` returned at `output` needs its argument at `given`."""
    wanted = [path.startswith(output) for path in run.outputs]
    _, used = partial_eval.dce_jaxpr(run.program.jaxpr, wanted)
    paths = zip(run.inputs, used, strict=True)
    return any(is_used for path, is_used in paths if path.startswith(given))


def open_boxes(tree: Any) -> Any:
    return meta.unbox(tree)


class Watched:
    """A caller's tree, which must stay as it is."""

    def __init__(self, tree: Any):
        self.tree = tree
        self.before = list(by_path(tree).items())

    def check(self) -> None:
        after = list(by_path(self.tree).items())
        assert [p for p, _ in after] == [p for p, _ in self.before], "structure"
        changed = [
            path
            for (path, new), (_, old) in zip(after, self.before, strict=True)
            if new is not old
        ]
        assert not changed, f"the caller's tree was changed at {changed}"
