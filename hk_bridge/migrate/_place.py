"""Where the checkpoint is that a path names: a file, or something in a folder."""

from collections.abc import Iterator
import contextlib
import pathlib
import re
from typing import Any
from typing import NamedTuple

from hk_bridge import _errors
from hk_bridge.migrate._files import progress_bar
from hk_bridge.migrate._files import size_of
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import CheckpointError
from hk_bridge.migrate._format import Format
from hk_bridge.migrate.formats import ORBAX
from hk_bridge.migrate.formats import failed
from hk_bridge.migrate.formats import known
from hk_bridge.migrate.formats import unknown_suffix

# What a folder of Hugging Face's has, Flax's own weights first.
_IN_FOLDER = [
    f"{name}{end}"
    for name in (
        *("flax_model.msgpack", "diffusion_flax_model.msgpack"),
        *("model.safetensors", "diffusion_pytorch_model.safetensors"),
    )
    for end in ("", ".index.json")
]


_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # `google/vit-base`
_LEGACY = r"checkpoint_(\d+)"  # a file of flax.training.checkpoints


class Place(NamedTuple):
    """Where a checkpoint is.

    Attributes:
      path: of the file or directory that is one.
      kind: its format.
    """

    path: pathlib.Path
    kind: Format

    def read(self, ask: Ask, progress: bool | None) -> Any:
        """What is there, as its format reads it."""
        with progress_bar(self.path, size_of(self.path), progress) as done:
            return self.kind.read(self.path, ask._replace(done=done))


@contextlib.contextmanager
def reading(path: pathlib.Path, step: int | None) -> Iterator[Place]:
    """The checkpoint that `path` names; what goes wrong with it is told in one line."""
    place = found(path, step)
    try:
        yield place
    except (CheckpointError, _errors.VariablesError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise failed(*place, "read", error) from error


def found(path: pathlib.Path, step: int | None) -> Place:
    """The checkpoint at `path`, and its format.

    Raises:
      FileNotFoundError: nothing is at `path`.
      CheckpointError: what is there is no checkpoint, or has not that step.
    """
    if not path.is_dir():
        try:
            path.open("rb").close()  # what the system says of it comes as it is
        except FileNotFoundError as error:
            if _HUB.fullmatch(path.as_posix()):
                error.add_note(f"A model of Hugging Face's hub is hf://{path}.")
            raise
    kind = known(path)
    if kind is not None:
        if step is not None:
            raise _no_steps(path, step, {})
        return Place(path, kind)
    if not path.is_dir():
        raise unknown_suffix(path)
    steps = _steps(path)
    if step is not None and step not in steps:
        raise _no_steps(path, step, steps)
    if steps:
        return _step(steps[max(steps) if step is None else step])
    if (path / "_CHECKPOINT_METADATA").is_file() and _items(path):  # a step
        return _step(path)
    for name in _IN_FOLDER:
        inner = path / name
        kind = known(inner)
        if kind is not None and inner.is_file():
            return Place(inner, kind)
    raise _nothing_inside(path)


def _steps(path: pathlib.Path) -> dict[int, pathlib.Path]:
    """What is saved in a folder, by step: `7`, `step_7` or `checkpoint_7`."""
    steps: dict[int, pathlib.Path] = {}
    for inner in sorted(path.iterdir()):
        folder = inner.is_dir()
        number = re.fullmatch(r"(?:.*_)?(\d+)" if folder else _LEGACY, inner.name)
        if number is None or (folder and not _items(inner)):
            continue
        other = steps.setdefault(int(number[1]), inner)
        if other != inner:
            raise CheckpointError(
                f"{path} has step {int(number[1])} twice, {other.name!r} and "
                f"{inner.name!r}. Load one of these by its own path."
            )
    return steps


def _items(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """The checkpoints of one step: it may be one itself, or have some by name."""
    if ORBAX.knows(path):
        return {"": path}
    return {inner.name: inner for inner in path.iterdir() if ORBAX.knows(inner)}


def _step(path: pathlib.Path) -> Place:
    kind = known(path)
    if kind is not None:
        return Place(path, kind)
    items = _items(path)
    if len(items) == 1:
        return Place(next(iter(items.values())), ORBAX)
    if "default" in items:
        return Place(items["default"], ORBAX)
    names = ", ".join(sorted(repr(str(item)) for item in items.values()))
    raise CheckpointError(
        f"{path} has several checkpoints inside. Load one of {names}."
    )


def _no_steps(
    path: pathlib.Path, step: int, steps: dict[int, pathlib.Path]
) -> CheckpointError:
    has = "It is one checkpoint, and has no steps: leave step= out."
    if steps:
        has = f"It has {', '.join(map(str, sorted(steps)[-8:]))}."
    elif path.is_dir() and known(path) is None:
        has = "It has no steps."
    return CheckpointError(f"{path} has no step {step}. {has}")


def _nothing_inside(path: pathlib.Path) -> CheckpointError:
    if (path / "checkpoint").is_file() and any(path.glob("target.*")):
        return CheckpointError(
            f"{path} is a checkpoint of T5X, which is not read. Restore it with t5x, "
            "and write hk_bridge.migrate.save(path, variables)."
        )
    some = [*path.glob("*/_METADATA"), *path.glob("*/*/_METADATA")]
    inside = ", ".join(sorted(repr(str(file.parent)) for file in some)[:8])
    hint = f"It has some inside. Load one of {inside}." if inside else "It has none."
    return CheckpointError(
        f"{path} is a directory, but no Orbax checkpoint: a file _METADATA was "
        f"expected in it, or one of {', '.join(_IN_FOLDER[::2])}. {hint}"
    )
