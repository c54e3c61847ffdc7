"""With which versions the tests ran.

`.ci/run` notes it after each step that passed: `python versions.py STEP FOLDER`.
"""

from collections.abc import Iterable
import importlib.metadata
import json
import pathlib
import platform
import sys

PACKAGES = ("jax", "jaxlib", "flax", "dm-haiku")


def note(step: str, folder: pathlib.Path) -> None:
    """Notes that `step` passed with what is installed for this interpreter."""
    python = platform.python_version()
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    noted = {"step": step, "system": platform.system(), "python": python, **versions}
    folder.mkdir(parents=True, exist_ok=True)
    key = "-".join([step, platform.system(), python, *versions.values()])
    (folder / f"{key}.json").write_text(json.dumps(noted), encoding="utf-8")


def noted(folder: pathlib.Path) -> list[tuple[tuple[str, ...], list[str]]]:
    """Each set of versions, the newest first, with the steps that passed with it."""
    found: dict[tuple[str, ...], list[str]] = {}
    for path in sorted(folder.glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        versions = tuple(run[key] for key in ("system", "python", *PACKAGES))
        found.setdefault(versions, []).append(run["step"])
    order = lambda item: (item[0][0] != "Linux", _newest_first(item[0][1:]))
    return sorted(found.items(), key=order)


def _newest_first(versions: Iterable[str]) -> list[list[int]]:
    numbers = lambda text: [-int(part) for part in text.split(".") if part.isdecimal()]
    return list(map(numbers, versions))


if __name__ == "__main__":
    note(sys.argv[1], pathlib.Path(sys.argv[2]))
