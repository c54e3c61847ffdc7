"""Files that Hugging Face splits into parts, of which an `index.json` tells."""

import json
import pathlib
from typing import Any

from hk_bridge.migrate._flat import joined
from hk_bridge.migrate._flat import split
from hk_bridge.migrate._format import Ask
from hk_bridge.migrate._format import Flat
from hk_bridge.migrate._format import Format
from hk_bridge.migrate._format import Tree
from hk_bridge.migrate._format import add_once
from hk_bridge.migrate._format import cannot_hold
from hk_bridge.migrate._format import has_suffix
from hk_bridge.migrate.formats import msgpack
from hk_bridge.migrate.formats import safetensors

_INDEX = ".index.json"
SHARD_SIZE = 5 * 10**9  # bytes of arrays in a part


def _kind(path: pathlib.Path) -> Format:
    """The format of the parts of an index."""
    own = path.name.lower().removesuffix(_INDEX)
    return msgpack.FORMAT if own.endswith(".msgpack") else safetensors.FORMAT


def read(path: pathlib.Path, ask: Ask) -> Flat:
    kind = _kind(path)
    index = json.loads(path.read_text())["weight_map"]
    flat = Flat()
    flat.separator = "/" if kind is msgpack.FORMAT else None
    for part in dict.fromkeys(index.values()):
        if not isinstance(part, str) or pathlib.PurePath(part).name != part:
            raise ValueError(f"its index names the part {part!r}, which is no file")
        held = kind.read(path.with_name(part), ask)
        if kind is msgpack.FORMAT:
            held = joined(held, "/")
        else:
            flat.separator = flat.separator or held.separator
        told = {name for name, file in index.items() if file == part}
        if told != set(held):
            differ = sorted(told ^ set(held))[0]
            raise ValueError(f"its index and its part {part!r} differ in {differ!r}")
        for name, leaf in held.items():
            add_once(flat, name, leaf)
    return flat


def check(tree: Tree) -> None:
    """Refuses names that the index could not tell apart."""
    try:
        joined(tree, "/"), joined(tree, ".")
    except ValueError as error:
        raise cannot_hold(FORMAT, error.args[1], error.args[0]) from None


def write(path: pathlib.Path, tree: Tree) -> None:
    """Writes the parts first, and the index last: without it there is no checkpoint."""
    kind = _kind(path)
    separator = "/" if kind is msgpack.FORMAT else "."
    parts: list[Flat] = [Flat()]
    size = 0
    for name, leaf in joined(tree, separator).items():
        if parts[-1] and size + leaf.nbytes > SHARD_SIZE:
            parts.append(Flat())
            size = 0
        parts[-1][name] = leaf
        size += leaf.nbytes
    stem, suffix = path.name[: -len(_INDEX)].rsplit(".", 1)
    index: dict[str, str] = {}
    total = 0
    assert kind.write is not None
    for number, part in enumerate(parts, 1):
        name = f"{stem}-{number:05}-of-{len(parts):05}.{suffix}"
        part.separator = separator
        index.update(dict.fromkeys(part, name))
        total += sum(leaf.nbytes for leaf in part.values())
        held: Any = split(part, "/") if kind is msgpack.FORMAT else part
        kind.write(path.with_name(name), held)
    told = {"metadata": {"total_size": total}, "weight_map": index}
    path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


FORMAT = Format(
    name="sharded",
    suffixes=(f".msgpack{_INDEX}", f".safetensors{_INDEX}"),
    dtypes=safetensors.FORMAT.dtypes,
    scalars=(),
    forbidden="",
    numbers=False,
    flat=False,
    knows=has_suffix(_INDEX),
    read=read,
    check=check,
    write=write,
)
