"""The formats of checkpoints, a file for each, and which one a path asks for."""

import pathlib

from hk_bridge.migrate._format import CheckpointError
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._formats import msgpack
from hk_bridge.migrate._formats import npz
from hk_bridge.migrate._formats import orbax
from hk_bridge.migrate._formats import safetensors

FORMATS = {
    ".msgpack": msgpack.FORMAT,
    ".safetensors": safetensors.FORMAT,
    ".npz": npz.FORMAT,
}
ORBAX = orbax.FORMAT


def format_of(path: pathlib.Path) -> Format:
    return ORBAX if path.is_dir() else FORMATS.get(path.suffix.lower(), ORBAX)


def no_format(path: pathlib.Path) -> str:
    return f"{path} is a file with the suffix {path.suffix!r}, which tells no format"


def failed(
    path: pathlib.Path, kind: Format, verb: str, error: Exception
) -> CheckpointError:
    cause = (str(error).strip() or "no more is known").splitlines()[0].rstrip(".")
    hint = "What was there before stands."
    if verb == "read":
        hint = (
            "Get the file again, if it was cut short, or give it the suffix of its "
            f"format ({', '.join(FORMATS)}; a directory is Orbax's)."
        )
    return CheckpointError(
        f"{path} could not be {verb} as a whole {kind.name} checkpoint. "
        f"{type(error).__name__}: {cause}. {hint}"
    )
