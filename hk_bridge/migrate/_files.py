"""Files on disk: how one takes the place of another, and what is shown of it."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import errno
import glob
import mmap
import os
import pathlib
import secrets
import shutil
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils
import numpy as np

from hk_bridge.migrate._extras import extra

Path = str | os.PathLike[str]
Done = Callable[[int], Any]  # told how many bytes more are done

_LARGE = 100_000_000  # bytes: from here on progress is shown


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new path beside `path`, which takes its place when the block is through."""
    target = pathlib.Path(os.path.realpath(path))  # through a link, as open() writes
    new = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        new.touch(exist_ok=False)
    except OSError as error:
        error.filename = str(path)  # the caller knows no other
        raise
    mode = (target if target.exists() else new).stat().st_mode
    try:
        new.chmod(0o600)  # what it replaces may be a secret
        yield new
        with new.open("rb+") as file:
            os.fsync(file)  # else a power cut may leave the new name on no bytes
        new.chmod(mode)
        new.replace(target)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def arriving(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A new path beside `path` for a directory, which gets that name after the block.

    All processes of `jax.distributed` get one path, and the first one renames."""
    path = path.absolute()
    token = secrets.token_hex(4)
    several = jax.process_count() > 1
    if several:
        token = _shared(token)
    new = path.with_name(f".{path.name[:50]}.{token}.tmp")
    try:
        yield new
        if jax.process_index() == 0:
            _rename(new, path)
    except BaseException:
        for rest in new.parent.glob(glob.escape(new.name) + "*"):
            shutil.rmtree(rest, ignore_errors=True)
        raise
    if several:
        multihost_utils.sync_global_devices(f"{path} has its name")


def _shared(token: str) -> str:
    """The token of the first process."""
    number = np.asarray(int(token, 16), np.uint32)
    return f"{int(multihost_utils.broadcast_one_to_all(number)):08x}"


def _rename(new: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a directory its name, unless another has it: then it was a race."""
    try:
        if path.is_symlink() or path.exists():
            raise FileExistsError(errno.EEXIST, "exists")
        new.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise FileExistsError(
                f"{path} was written by somebody else meanwhile, and stands. Choose a "
                "new name."
            ) from None
        raise


@contextlib.contextmanager
def arriving_parts(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A file in a new directory, whose neighbours get their places beside `path`
    after the block, and that file last. What is there is never replaced: it may be a
    part of what another process saves to the same path."""
    folder = path.absolute().with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        folder.mkdir()
    except OSError as error:
        error.filename = str(path)
        raise
    placed: list[pathlib.Path] = []
    try:
        yield folder / path.name
        parts = sorted(folder.iterdir())
        for part in sorted(parts, key=lambda part: part.name == path.name):
            with part.open("rb+") as file:
                os.fsync(file)
            _place(part, path.with_name(part.name))
            placed.append(path.with_name(part.name))
    except BaseException:
        for part in reversed(placed):
            part.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place(part: pathlib.Path, target: pathlib.Path) -> None:
    """Gives a file its name, unless another has it."""
    try:
        os.link(part, target)
    except OSError as error:
        if error.errno == errno.EEXIST or target.is_symlink() or target.exists():
            raise FileExistsError(
                f"{target} exists, and parts cannot be replaced at once. Choose a new "
                "name, or remove it with its parts."
            ) from None
        part.rename(target)  # where there are no hard links


@contextlib.contextmanager
def mapped(path: pathlib.Path, keep: bool = False) -> Iterator[Any]:
    """The bytes of a file, mapped into memory; with `keep` for as long as they are
    used, so that arrays can lie there."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("it is empty")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with contextlib.nullcontext(data) if keep else data:
        yield data


def size_of(path: pathlib.Path) -> int:
    """Bytes at `path` so far; a directory's while Orbax writes it, under its name."""
    if path.is_file():
        return path.stat().st_size
    roots = [path, *path.parent.glob(glob.escape(path.name) + ".orbax*")]
    files = (file for root in roots for file in root.rglob("*"))
    return sum(file.stat().st_size for file in files if file.is_file())


@contextlib.contextmanager
def progress_bar(
    path: pathlib.Path,
    total: int,
    wanted: bool | None,
    size: Callable[[], int] | None = None,
) -> Iterator[Done]:
    """Shows how much of `total` is done: as the block tells, or `size` as it grows."""
    tqdm = None
    if wanted or (wanted is None and total > _LARGE):
        with contextlib.nullcontext() if wanted else contextlib.suppress(ImportError):
            tqdm = extra("tqdm")
    if tqdm is None:
        yield lambda count: None
        return
    hide = None if wanted is None else False  # None: unless in a terminal
    options = {"unit": "B", "unit_scale": True, "disable": hide}
    stop = threading.Event()
    with tqdm.tqdm(total=total, desc=path.name, **options) as bar:

        def follow(size: Callable[[], int]) -> None:
            while not stop.wait(0.1):
                with contextlib.suppress(OSError):  # Orbax renames beneath our feet
                    bar.update(min(size(), total) - bar.n)

        thread = threading.Thread(target=follow, args=(size,), daemon=True)
        if size:  # a thread, since the libraries write a file in one call
            thread.start()
        try:
            yield bar.update
            bar.update(total - bar.n)
        finally:
            stop.set()
            if size:
                thread.join()
