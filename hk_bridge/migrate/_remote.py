"""Paths that are not on a disk: copied here to be read, and there when written."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
import tempfile
from typing import Any

from hk_bridge.migrate._extras import extra
from hk_bridge.migrate._files import Path
from hk_bridge.migrate._format import CheckpointError
from hk_bridge.migrate.formats import ORBAX
from hk_bridge.migrate.formats import SHARDED
from hk_bridge.migrate.formats import for_saving

# One scheme, or several as fsspec chains them: `simplecache::s3://`.
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+::)*[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_remote(path: Path) -> bool:
    """Whether `path` is one like `gs://bucket/net.msgpack` or `hf://owner/model`."""
    return _SCHEME.match(os.fspath(path)) is not None


@contextlib.contextmanager
def at_hand(path: Path) -> Iterator[pathlib.Path]:
    """`path`, or a copy of what is there for as long as the block runs."""
    if not is_remote(path):
        yield pathlib.Path(path)
        return
    files, inner = _files_of(path)
    with tempfile.TemporaryDirectory() as folder:
        local = pathlib.Path(folder) / inner.rstrip("/").rpartition("/")[2]
        if files.isdir(inner):
            files.get(inner.rstrip("/") + "/", f"{local}/", recursive=True)
        else:
            files.get_file(inner, str(local))
            index = local.name.removesuffix(".index.json")
            if index != local.name:  # its parts are beside it
                stem, _, suffix = index.rpartition(".")
                parts = inner.rpartition("/")[0] + f"/{stem}-*-of-*.{suffix}"
                for part in files.glob(parts):
                    files.get_file(part, str(local.with_name(part.rpartition("/")[2])))
        with _told_of(path, local):
            yield local


@contextlib.contextmanager
def from_hand(path: Path) -> Iterator[pathlib.Path]:
    """`path`, or a place here, whose content is copied there after the block."""
    if not is_remote(path):
        yield pathlib.Path(path)
        return
    files, inner = _files_of(path)
    with tempfile.TemporaryDirectory() as folder:
        local = pathlib.Path(folder) / inner.rstrip("/").rpartition("/")[2]
        if files.exists(inner) and (files.isdir(inner) or not _is_replaced(local)):
            raise FileExistsError(
                f"{path} exists, and cannot be replaced at once. Choose a new name."
            )
        with _told_of(path, local):
            yield local
        for part in sorted(local.parent.iterdir(), key=lambda part: part == local):
            target = inner.rstrip("/").rpartition("/")[0] + f"/{part.name}"
            files.put(str(part), target, recursive=part.is_dir())


def _is_replaced(local: pathlib.Path) -> bool:
    """Whether what is saved is one file."""
    return for_saving(local) not in (ORBAX, SHARDED)


@contextlib.contextmanager
def _told_of(path: Path, local: pathlib.Path) -> Iterator[None]:
    """Names what is far away where an error names the copy, which is gone by then."""
    try:
        yield
    except CheckpointError as error:
        there = os.fspath(path).rstrip("/")
        above = there.rpartition("/")[0]
        text = str(error).replace(str(local), there).replace(str(local.parent), above)
        raise CheckpointError(text) from error.__cause__


def _files_of(path: Path) -> tuple[Any, str]:
    core = extra("fsspec").core
    try:
        files, inner = core.url_to_fs(os.fspath(path))
    except ValueError as error:  # it does not know the scheme
        raise CheckpointError(f"{path} cannot be reached: {error}.") from error
    return files, inner
