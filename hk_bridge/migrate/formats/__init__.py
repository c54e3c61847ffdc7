"""The formats of checkpoints, a file for each, and which one a path asks for."""

import pathlib
import pickle

from hk_bridge.migrate._format import CheckpointError
from hk_bridge.migrate._format import Format
from hk_bridge.migrate.formats import msgpack
from hk_bridge.migrate.formats import nest
from hk_bridge.migrate.formats import npz
from hk_bridge.migrate.formats import orbax
from hk_bridge.migrate.formats import pickles
from hk_bridge.migrate.formats import recipe
from hk_bridge.migrate.formats import safetensors
from hk_bridge.migrate.formats import sharded

ORBAX = orbax.FORMAT
SHARDED = sharded.FORMAT
FORMATS = (
    msgpack.FORMAT,
    safetensors.FORMAT,
    npz.FORMAT,
    SHARDED,
    pickles.FORMAT,
    recipe.FORMAT,
    nest.FORMAT,
    ORBAX,
)
# The suffixes of single files, one for each format.
_FILES = [kind for kind in FORMATS if kind.suffixes and kind is not SHARDED]
_READ = [kind.suffixes[0] for kind in _FILES]
WRITTEN = [kind.suffixes[0] for kind in _FILES if kind.write]


def known(path: pathlib.Path) -> Format | None:
    """The format of what is at `path`, if its name tells."""
    return next((kind for kind in FORMATS if kind.knows(path)), None)


def for_saving(path: pathlib.Path) -> Format:
    """The format that the suffix of `path` asks for; without one, a directory."""
    name = path.name.lower()
    found = (kind for kind in FORMATS if name.endswith(kind.suffixes or ("\0",)))
    return ORBAX if path.is_dir() else next(found, ORBAX)


def no_format(path: pathlib.Path) -> str:
    return f"{path} is a file with the suffix {path.suffix!r}, which tells no format"


def unknown_suffix(path: pathlib.Path) -> CheckpointError:
    return CheckpointError(
        f"{no_format(path)}. Expected {', '.join(_READ)} or a directory, or the "
        "checkpoint_100 of flax.training.checkpoints. Rename it, if it is one of these."
    )


def failed(
    path: pathlib.Path, kind: Format, verb: str, error: Exception
) -> CheckpointError:
    cause = (str(error).strip() or "no more is known").splitlines()[0].rstrip(".")
    hint = "What was there before stands."
    if isinstance(error, pickle.UnpicklingError):
        hint = (
            "Pickles are read if they hold arrays in dicts, and no code is run. Load "
            "it with the code that wrote it, and save the weights alone."
        )
    elif verb == "read":
        hint = (
            "Get the file again, if it was cut short, or give it the suffix of its "
            f"format ({', '.join(_READ)}; a directory is Orbax's)."
        )
    return CheckpointError(
        f"{path} could not be {verb} as a whole {kind.name} checkpoint. "
        f"{type(error).__name__}: {cause}. {hint}"
    )
