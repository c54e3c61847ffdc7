"""Flax checkpoints that others wrote, and what is damaged in one: told, or exact."""

import errno
import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
from typing import Any
import warnings
import zipfile

import flax
from flax import nnx
from flax import traverse_util
import flax.linen as nn
import fsspec
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

import hk_bridge
from hk_bridge import migrate
from hk_bridge.migrate.formats import sharded
from hk_bridge.testing import assert_identical

DATA = pathlib.Path(__file__).parent.parent / "data"
OLD, NEWER = DATA / "jax_0_4_13", DATA / "flax_0_10_2"
W = np.arange(6, dtype=np.float32).reshape(2, 3)
TREE: Any = {"Dense_0": {"kernel": W, "bias": W[0]}, "norm": {"scale": W[1]}}


def refused(path, *parts, **options):
    with pytest.raises(migrate.CheckpointError) as caught:
        migrate.load(path, **options)
    for part in (str(path), *parts):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# Written by others: see make.py beside the files.


@pytest.mark.parametrize(
    "name",
    [
        *("one", "parts", "safe", "one/flax_model.msgpack", "safe/model.safetensors"),
        "parts/flax_model.msgpack.index.json",
    ],
)
def test_hugging_faces_files(name):
    loaded = migrate.load(NEWER / name, collection="params")
    with np.load(NEWER / "expected.npz") as archive:
        flat = dict(archive)
    assert_identical(loaded, {"params": traverse_util.unflatten_dict(flat, sep="/")})


def test_big_visions_archive():
    loaded = migrate.load(NEWER / "big_vision.npz")
    kernel = np.ones([2, 3], jnp.bfloat16)
    assert_identical(loaded["params"], {"img": {"head": {"kernel": kernel}}})
    assert loaded["opt"]["0"]["mu"].shape == (2, 3)
    with pytest.raises(hk_bridge.VariablesError, match="'opt' beside 'params'"):
        hk_bridge.to_haiku(loaded, name="net")
    picked = migrate.load(NEWER / "big_vision.npz", collection="params")
    assert_identical(picked, {"params": loaded["params"]})


def test_a_state_of_nnx_has_no_level_value():
    loaded = migrate.load(NEWER / "nnx", collection="params")["params"]
    assert loaded["layers"]["0"]["kernel"].shape == (2, 3)
    assert set(loaded["layers"]["1"]) == {"bias", "mean", "scale", "var"}


def test_a_state_of_nnx_goes_to_haiku(tmp_path):
    """Types and numbers are in the model alone."""

    def model(seed):
        rngs = nnx.Rngs(seed)
        layers = nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)
        return nnx.Sequential(*layers, nnx.Dropout(0.5, rngs=rngs))

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "a", nnx.state(model(0)))
    state = nnx.state(model(1))
    loaded = migrate.load(tmp_path / "a", collection="params")["params"]
    nnx.replace_by_pure_dict(state, loaded)
    wanted = hk_bridge.to_haiku(nnx.state(model(0)), name="net")
    given = hk_bridge.to_haiku(state, name="net")
    assert set(given[1]) == {"net/batch_stats/layers/%i1"}
    jax.tree.map(np.testing.assert_array_equal, given, wanted)


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ".safetensors", ""])
def test_a_variable_named_value_is_none_of_nnx(suffix, tmp_path):
    tree = {"memo": {"value": W}}
    migrate.save(tmp_path / f"a{suffix}", tree)
    assert_identical(migrate.load(tmp_path / f"a{suffix}"), tree)
    assert_identical(migrate.load(tmp_path / f"a{suffix}", collection="memo"), tree)
    mixed = {"a": {"value": W}, "b": {"w": W}}
    migrate.save(tmp_path / f"b{suffix}", mixed)
    loaded = migrate.load(tmp_path / f"b{suffix}", collection="params")
    assert_identical(loaded, {"params": mixed})


def test_files_beside_weights_are_no_steps(tmp_path):
    migrate.save(tmp_path / "flax_model.msgpack", TREE)
    (tmp_path / "notes_2024").write_bytes(b"text")
    (tmp_path / "12").write_bytes(b"text")
    (tmp_path / "images_7").mkdir()
    assert_identical(migrate.load(tmp_path), TREE)


def test_a_model_of_the_hub_is_told():
    with pytest.raises(FileNotFoundError) as caught:
        migrate.load("google/vit-base")
    (note,) = caught.value.__notes__
    assert note == "A model of Hugging Face's hub is hf://google/vit-base."
    for path in ("~/net", "./net", "../net", "a/b/c", "C:/net", "net", "/net/b"):
        with pytest.raises(FileNotFoundError) as caught:
            migrate.load(path)
        assert not hasattr(caught.value, "__notes__")


def test_lists_of_a_state_of_training_are_cast_too(tmp_path):
    tree = {"params": {"w": W}, "opt_state": [{"mu": W}, [W[0], 3]]}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "net", tree)
    loaded = migrate.load(tmp_path / "net", dtype="float16")["opt_state"]
    assert loaded[0]["mu"].dtype == loaded[1][0].dtype == np.float16
    path = tmp_path / "a.msgpack"
    path.write_bytes(PACK({"a": [flax.serialization.msgpack.ExtType(77, b"")]}))
    refused(path, "ExtType at 'a/0', which is no leaf")


def test_legacy_checkpoints():
    newest = migrate.load(OLD / "legacy", collection="params")
    assert_identical(newest, {"params": {"w": np.ones(2, np.float32)}})
    assert migrate.load(OLD / "legacy")["step"] == 100
    assert migrate.load(OLD / "legacy", step=9)["step"] == 9
    assert migrate.load(OLD / "legacy" / "checkpoint_9")["step"] == 9


def test_msgpack_with_none():
    loaded = migrate.load(OLD / "none.msgpack")
    assert loaded["params"]["bias"] is None
    assert_identical(loaded["params"]["w"], np.ones(2, np.float32))


def test_a_bare_tree_of_old():
    loaded = migrate.load(OLD / "flax_model.msgpack", collection="params")
    assert loaded["params"]["layer"]["kernel"].dtype == jnp.bfloat16
    assert loaded["params"]["cls"].shape == (3,)


# Which part is taken.


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ".safetensors", ""])
def test_a_collection_is_taken_or_made(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    migrate.save(path, TREE)
    assert_identical(migrate.load(path), TREE)
    assert_identical(migrate.load(path, collection="params"), {"params": TREE})
    both = {"params": TREE, "batch_stats": {"m": W}, "opt_state": {"mu": W}}
    path = tmp_path / f"b{suffix}"
    migrate.save(path, both)
    assert_identical(migrate.load(path, collection="params"), {"params": TREE})
    two = migrate.load(path, collection=["batch_stats", "params"])
    assert_identical(two, {"params": TREE, "batch_stats": {"m": W}})
    with pytest.raises(hk_bridge.VariablesError, match="no collection 'memo' on top"):
        migrate.load(path, collection="memo")
    with pytest.raises(hk_bridge.VariablesError, match="no collection 'memo' on top"):
        migrate.load(path, collection=["params", "memo"])


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ".safetensors", ""])
def test_a_collection_with_shardings(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    migrate.save(path, TREE)
    loaded = migrate.load(path, collection="params", shardings={"params": one})
    assert_identical(loaded, {"params": jax.tree.map(jnp.asarray, TREE)})
    migrate.save(tmp_path / f"b{suffix}", {"params": TREE, "opt_state": {"mu": W}})
    loaded = migrate.load(
        tmp_path / f"b{suffix}", collection="params", shardings={"params": one}
    )
    assert_identical(loaded, {"params": jax.tree.map(jnp.asarray, TREE)})


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ".safetensors", ""])
@pytest.mark.parametrize("sharded_load", [False, True])
def test_floats_are_cast(suffix, sharded_load, tmp_path):
    path = tmp_path / f"a{suffix}"
    tree = {"params": {"h": W.astype("f2"), "b": W.astype(jnp.bfloat16), "f": W}}
    tree["params"]["i"] = np.arange(3, dtype=np.int32)
    migrate.save(path, tree)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    options = {"shardings": one} if sharded_load else {}
    loaded = migrate.load(path, dtype=jnp.float32, **options)["params"]
    assert all(loaded[name].dtype == np.float32 for name in "hbf")
    assert loaded["i"].dtype == np.int32
    np.testing.assert_array_equal(loaded["h"], W)
    half = migrate.load(path, dtype="bfloat16", **options)["params"]
    assert half["f"].dtype == jnp.bfloat16


def test_wrong_arguments(tmp_path):
    migrate.save(tmp_path / "a.npz", TREE)
    for dtype in ("int8", "complex64", bool):
        with pytest.raises(TypeError, match="dtype= is a floating-point dtype, not"):
            migrate.load(tmp_path / "a.npz", dtype=dtype)
        with pytest.raises(TypeError, match="dtype= is a floating-point dtype, not"):
            migrate.load_haiku(tmp_path / "a.npz", dtype=dtype)
    with pytest.raises(TypeError, match="not understood"):
        migrate.load(tmp_path / "a.npz", dtype="nope")
    for separator in ("", 3):
        with pytest.raises(ValueError, match="separator= is a str like '.', not"):
            migrate.load(tmp_path / "a.npz", separator=separator)
    assert migrate.load(tmp_path / "a.npz", collection=[]) == {}
    with pytest.raises(migrate.CheckpointError, match="names no format of the parts"):
        migrate.save(tmp_path / "model.index.json", TREE)
    assert os.listdir(tmp_path) == ["a.npz"]


def test_steps_of_a_checkpoint_manager(tmp_path):
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        for step in (1, 5, 10):
            tree = {"params": {"w": np.full(2, step)}}
            manager.save(step, args=ocp.args.StandardSave(tree))
        manager.wait_until_finished()
    assert migrate.load(tmp_path / "run")["params"]["w"][0] == 10
    assert migrate.load(tmp_path / "run", step=5)["params"]["w"][0] == 5
    assert migrate.load(tmp_path / "run" / "1")["params"]["w"][0] == 1
    refused(tmp_path / "run", "has no step 7. It has 1, 5, 10.", step=7)
    refused(tmp_path / "run" / "1" / "default", "has no steps: leave", step=1)
    (tmp_path / "run" / "99").mkdir()  # not a checkpoint yet
    assert migrate.load(tmp_path / "run")["params"]["w"][0] == 10
    migrate.save(tmp_path / "run" / "010", {"params": {"w": W}})
    refused(tmp_path / "run", "has step 10 twice, '010' and '10'")


def test_steps_with_several_items(tmp_path):
    with ocp.CheckpointManager(tmp_path / "run") as manager:
        items = {
            "params": ocp.args.StandardSave({"w": W}),
            "opt": ocp.args.StandardSave({"mu": W}),
        }
        manager.save(3, args=ocp.args.Composite(**items))
        manager.wait_until_finished()
    step = tmp_path / "run" / "3"
    with pytest.raises(migrate.CheckpointError) as caught:
        migrate.load(tmp_path / "run")
    inside = f"'{step / 'opt'}', '{step / 'params'}'"
    assert f"{step} has several checkpoints inside. Load one of {inside}." in str(
        caught.value
    )
    assert_identical(migrate.load(step / "params"), {"w": W})


def test_steps_named_as_training_loops_name_them(tmp_path):
    for name in ("step_000007", "step_000012", "notes"):
        migrate.save(tmp_path / name, {"params": {"w": np.array([len(name)])}})
    assert_identical(migrate.load(tmp_path), migrate.load(tmp_path / "step_000012"))
    assert_identical(migrate.load(tmp_path, step=7), migrate.load(tmp_path, step=12))


def test_t5x_is_told(tmp_path):
    (tmp_path / "checkpoint").write_bytes(b"")
    (tmp_path / "target.decoder.kernel").mkdir()
    refused(tmp_path, "is a checkpoint of T5X, which is not read")


# Flat names.

FLAT = {"Dense_0.kernel": W, "Dense_0.bias": W[0], "norm.scale": W[1]}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("separator", [".", "/"])
def test_names_that_are_joined(suffix, separator, tmp_path):
    path = tmp_path / f"a{suffix}"
    flat = {name.replace(".", separator): leaf for name, leaf in FLAT.items()}
    if suffix == ".npz":
        np.savez(path, **flat)
    else:
        safetensors.numpy.save_file(flat, path)
    assert_identical(migrate.load(path, separator=separator), TREE)
    taken = migrate.load(path, separator=separator, collection="params")
    assert_identical(taken, {"params": TREE})
    plain = migrate.load(path)
    assert_identical(plain, flat if separator == "." else TREE)
    migrate.save(tmp_path / f"b{suffix}", TREE, separator=separator)
    assert_identical(migrate.load(tmp_path / f"b{suffix}", separator=separator), TREE)
    if suffix == ".npz":
        with np.load(tmp_path / "b.npz") as archive:
            assert set(archive) == set(flat)


def test_names_of_variables_joined_by_dots_need_no_separator(tmp_path):
    flat = {f"params.{name}": leaf for name, leaf in FLAT.items()}
    np.savez(tmp_path / "a.npz", **flat, **{"batch_stats.mean": W})
    loaded = migrate.load(tmp_path / "a.npz")
    assert_identical(loaded, {"params": TREE, "batch_stats": {"mean": W}})
    odd = {"params.a": W}
    with pytest.raises(hk_bridge.VariablesError, match="a name that reads as two"):
        migrate.save(tmp_path / "b.npz", odd)


def test_metadata_tells_of_dots(tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.numpy.save_file(FLAT, path, metadata={"format": "flax"})
    assert_identical(migrate.load(path), TREE)
    safetensors.numpy.save_file(FLAT, path, metadata={"format": "pt"})
    assert_identical(migrate.load(path), FLAT)
    migrate.save(tmp_path / "ours.safetensors", TREE, separator=".")
    assert_identical(migrate.load(tmp_path / "ours.safetensors"), TREE)


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"a.b": {"w": W}}, "cannot be joined by '.'"),
        ({"a": {"": {}}}, "an empty dict"),
        ({"a": {0: W}}, "cannot be joined by '.'"),
    ],
)
def test_names_that_cannot_be_joined(tree, told, tmp_path):
    with pytest.raises(hk_bridge.VariablesError, match=told):
        migrate.save(tmp_path / "a.npz", tree, separator=".")
    assert os.listdir(tmp_path) == []


def test_names_that_are_not_spelled_as_ours_are_given_raw(tmp_path):
    np.savez(tmp_path / "a.npz", **{"params/~/x%": W})
    refused(tmp_path / "a.npz", "not a name that hk_bridge writes")
    loaded = migrate.load(tmp_path / "a.npz", separator="/")
    assert_identical(loaded, {"params": {"~": {"x%": W}}})


# In parts.

INDEX = ["flax_model.msgpack.index.json", "model.safetensors.index.json"]


@pytest.mark.parametrize("name", INDEX)
def test_parts_are_written_and_read(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sharded, "SHARD_SIZE", 30)
    path = tmp_path / name
    migrate.save(path, TREE)
    stem, suffix = name.removesuffix(".index.json").split(".")
    parts = {f"{stem}-{i:05}-of-00002.{suffix}" for i in (1, 2)}
    assert set(os.listdir(tmp_path)) == {name, *parts}
    index = json.loads(path.read_text())
    assert index["metadata"] == {"total_size": 48}
    assert set(index["weight_map"].values()) == parts
    for place in (path, tmp_path):
        assert_identical(migrate.load(place), TREE)
    with pytest.raises(FileExistsError, match="its parts cannot be replaced at once"):
        migrate.save(path, TREE)


def parts(tmp_path, monkeypatch, name):
    monkeypatch.setattr(sharded, "SHARD_SIZE", 30)
    migrate.save(tmp_path / name, TREE)
    return tmp_path / name, json.loads((tmp_path / name).read_text())


@pytest.mark.parametrize("name", INDEX)
def test_parts_that_do_not_fit_their_index(name, tmp_path, monkeypatch):
    path, index = parts(tmp_path, monkeypatch, name)
    names = list(index["weight_map"])
    first = index["weight_map"][names[0]]
    last = next(part for part in index["weight_map"].values() if part != first)
    damaged: Any = {
        "a name too few": {
            n: p for n, p in index["weight_map"].items() if n != names[0]
        },
        "a name too many": {**index["weight_map"], "other": first},
        "a part of another name": {**index["weight_map"], names[0]: last},
        "a part elsewhere": {**index["weight_map"], names[0]: f"../{first}"},
        "no name of a part": {**index["weight_map"], names[0]: 3},
        "a part that is not there": {**index["weight_map"], names[0]: "none"},
    }
    for weight_map in damaged.values():
        path.write_text(json.dumps({"weight_map": weight_map}))
        refused(path, "could not be read")
    for text in ("", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": null}}'):
        path.write_text(text)
        refused(path, "could not be read")


@pytest.mark.parametrize(
    "tree", [{"a/b": {"w": W}}, {"a.b": {"w": W}}, {"a": {}}, {"a": {0: W}}]
)
@pytest.mark.parametrize("name", INDEX)
def test_what_an_index_cannot_tell_apart(name, tree, tmp_path):
    with pytest.raises(hk_bridge.VariablesError, match="sharded cannot hold"):
        migrate.save(tmp_path / name, tree)
    assert os.listdir(tmp_path) == []


def test_a_save_in_parts_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(sharded, "SHARD_SIZE", 30)

    def fails(path, tree):
        path.write_bytes(b"half")
        raise RuntimeError("no more")

    monkeypatch.setattr(
        sharded.safetensors, "FORMAT", sharded.safetensors.FORMAT._replace(write=fails)
    )
    with pytest.raises(migrate.CheckpointError, match="no more"):
        migrate.save(tmp_path / INDEX[1], TREE)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("more", [0, 1])
def test_saves_in_parts_at_once_do_not_mix(links, more, tmp_path, monkeypatch):
    """Another save to the same path ends while this one writes."""

    def no_link(*args):
        raise PermissionError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    path = tmp_path / "model.safetensors.index.json"
    first, others = (
        {"params": {f"w{i}": np.full(9, number, np.float32) for i in range(3)}}
        for number in (1, 2)
    )
    if more:  # so that parts have other names
        others["params"]["more"] = W
    monkeypatch.setattr(sharded, "SHARD_SIZE", 36)
    write = sharded.safetensors.FORMAT.write
    saved = []

    def meanwhile(*args):
        if not saved:
            saved.append(others)
            migrate.save(path, others)
        write(*args)

    slow = sharded.safetensors.FORMAT._replace(write=meanwhile)
    monkeypatch.setattr(sharded.safetensors, "FORMAT", slow)
    with pytest.raises(FileExistsError, match="exists, and parts cannot be replaced"):
        migrate.save(path, first)
    assert_identical(migrate.load(path), others)
    assert len(os.listdir(tmp_path)) == 4 + more


def test_parts_of_another_are_not_replaced(tmp_path):
    part = tmp_path / "model-00001-of-00001.safetensors"
    part.write_bytes(b"others")
    with pytest.raises(FileExistsError, match=part.name):
        migrate.save(tmp_path / "model.safetensors.index.json", TREE)
    assert os.listdir(tmp_path) == [part.name]
    assert part.read_bytes() == b"others"


# Far away.


@pytest.fixture
def memory():
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ".safetensors", ""])
def test_what_is_far_away(memory, suffix):
    path = f"memory://bucket/a{suffix}"
    migrate.save(path, {"params": TREE})
    assert_identical(migrate.load(path), {"params": TREE})
    haiku = f"memory://bucket/b{suffix}"
    migrate.save_haiku(haiku, {"a/~/b": {"w": W}})
    assert_identical(migrate.load_haiku(haiku), ({"a/~/b": {"w": W}}, {}))


def test_parts_that_are_far_away(memory, monkeypatch):
    monkeypatch.setattr(sharded, "SHARD_SIZE", 30)
    path = f"memory://bucket/{INDEX[0]}"
    migrate.save(path, TREE)
    assert len(memory.glob("/bucket/flax_model*")) == 3
    assert_identical(migrate.load(path), TREE)


@pytest.mark.parametrize("name", ["a", *INDEX])
def test_what_is_far_away_is_not_replaced_in_parts(memory, name):
    path = f"memory://bucket/{name}"
    migrate.save(path, TREE)
    held = {file: memory.cat(file) for file in memory.find("/bucket")}
    for save in (migrate.save, migrate.save_haiku):
        with pytest.raises(FileExistsError, match=f"{path} exists, and cannot be"):
            save(path, {"params": {"w": W}})
    assert {file: memory.cat(file) for file in memory.find("/bucket")} == held
    assert_identical(migrate.load(path), TREE)


def test_a_file_far_away_is_replaced_and_a_folder_is_not(memory):
    for tree in (TREE, {"params": {"w": W}}):
        migrate.save("memory://bucket/a.npz", tree)
        assert_identical(migrate.load("memory://bucket/a.npz"), tree)
    memory.pipe("/bucket/b.npz/c", b"text")
    with pytest.raises(FileExistsError, match="memory://bucket/b.npz exists"):
        migrate.save("memory://bucket/b.npz", TREE)


def test_errors_name_what_is_far_away(memory):
    migrate.save("memory://bucket/run/a", TREE)
    memory.pipe("/bucket/b.npz", b"text")
    inside = "^memory://bucket/run is a dir.*Load one of 'memory://bucket/run/a'"
    for path, told in (
        ("memory://bucket/run", inside),
        ("memory://bucket/b.npz", "^memory://bucket/b.npz could not be read"),
    ):
        with pytest.raises(migrate.CheckpointError, match=told):
            migrate.load(path)
    with pytest.raises(migrate.CheckpointError, match="^memory://bucket/a.pkl has the"):
        migrate.save("memory://bucket/a.pkl", TREE)


def test_chained_paths(memory):
    migrate.save("memory://bucket/a.npz", TREE)
    assert_identical(migrate.load("simplecache::memory://bucket/a.npz"), TREE)


def test_what_cannot_be_reached(monkeypatch):
    with pytest.raises(migrate.CheckpointError, match="xyz://a.npz cannot be reached"):
        migrate.load("xyz://a.npz")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ModuleNotFoundError, match="Write pip install fsspec"):
        migrate.load("gs://bucket/a.npz")


# Damage that NumPy's and Flax's own readers let pass.


def archive(tmp_path, **flat):
    path = tmp_path / "a.npz"
    np.savez(path, **flat)
    return path, path.read_bytes()


def test_every_flipped_bit_of_an_archive_is_told_or_changes_nothing(tmp_path):
    leaf = np.arange(40.0)
    path, whole = archive(tmp_path, **{"params/w": leaf, "params/é": W, "state/m": W})
    before = migrate.load(path)
    told = 0
    for place in range(len(whole)):
        for bit in range(8):
            content = bytearray(whole)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            try:
                after = migrate.load(path)
            except migrate.CheckpointError:
                told += 1
            else:
                assert_identical(after, before)
    assert told > len(whole) * 4


@pytest.mark.parametrize("more", [b"\0", b"\0" * 70_000, b"PK\5\6" + bytes(18)])
@pytest.mark.parametrize("before", [False, True])
def test_an_archive_with_something_else(more, before, tmp_path):
    path, whole = archive(tmp_path, w=W)
    path.write_bytes(more + whole if before else whole + more)
    refused(path, "could not be read")


def test_an_archive_with_an_end_of_zeros(tmp_path):
    path, whole = archive(tmp_path, w=W)
    path.write_bytes(whole[:-18] + bytes(18))
    refused(path, "could not be read")


def test_a_header_that_is_damaged_beyond_what_numpy_reads_ahead(tmp_path):
    path = tmp_path / "a.npz"
    leaf = np.arange(100_000.0)
    np.savez(path, w=leaf)
    content = path.read_bytes().replace(b"(100000,), }", b"(1000,), }  ")
    path.write_bytes(content)
    refused(path, "'w.npy' is no array of shape (1000,)")
    content = content.replace(b"(1000,), }  ", b"(-1,), }    ")
    path.write_bytes(content)
    refused(path, "'w.npy' is no array of shape (-1,)")
    content = content.replace(b"(-1,), }    ", b"(50000, 2), }"[:12])
    path.write_bytes(content)
    refused(path, "could not be read")


@pytest.mark.parametrize("names", [["w.npy", "w.npy"], ["w", "w.npy"]])
def test_an_archive_with_a_name_twice(names, tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, of the name that is there twice
        for number, name in enumerate(names):
            buffer = io.BytesIO()
            np.save(buffer, W + number)
            file.writestr(name, buffer.getvalue())
    refused(path, "it has the name 'w' twice")


def test_a_member_with_more_than_an_array(tmp_path):
    path = tmp_path / "a.npz"
    buffer = io.BytesIO()
    np.save(buffer, W)
    np.save(buffer, W)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w.npy", buffer.getvalue())
    refused(path, "is no array of shape (2, 3)")


def test_archives_of_all_sizes_and_writers_are_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **{f"a{i}": np.zeros(0) for i in range(70_000)})  # ZIP64
    assert len(migrate.load(path)) == 70_000
    np.savez_compressed(path, w=W)
    assert_identical(migrate.load(path), {"w": W})
    with path.open("wb") as file:  # a stream, with its sizes after the bytes

        class Stream:
            write, flush = file.write, file.flush

        with zipfile.ZipFile(Stream(), "w") as stream:
            buffer = io.BytesIO()
            np.save(buffer, W)
            stream.writestr("w.npy", buffer.getvalue())
    assert_identical(migrate.load(path), {"w": W})


def members(path, content, **more):
    """An archive with `content`, `{name of a member: array or bytes}`."""
    with zipfile.ZipFile(path, "w") as file:
        for name, value in content.items():
            if not isinstance(value, bytes):
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, value, **more)
                value = buffer.getvalue()
            file.writestr(name, value)
        file.comment = b"a comment"


@pytest.mark.parametrize("count", [6, 60_000])
def test_archives_that_others_make(count, tmp_path):
    path, leaf = tmp_path / "a.npz", np.arange(float(count)).reshape(2, -1)
    members(path, {"params/": b"", "params/w.npy": leaf})  # zip -r has the folders
    assert_identical(migrate.load(path), {"params": {"w": leaf}})
    members(path, {"params/w.npy": leaf}, version=(2, 0))
    assert_identical(migrate.load(path), {"params": {"w": leaf}})
    path.write_bytes(path.read_bytes()[:-1])  # of the comment
    refused(path, "could not be read")
    members(path, {"params/w.npy": leaf.astype(np.longdouble)})
    refused(path, "array at 'params/w', which is no leaf")
    members(path, {"params/w.npy": np.zeros(count, [("é", "f4")])})
    refused(path, "could not be read")
    members(path, {"params/w.npy": np.asfortranarray(leaf), "state/w": leaf})
    assert_identical(migrate.load(path), {"params": {"w": leaf}, "state": {"w": leaf}})


def test_safetensors_that_are_not_aligned(tmp_path):
    path = tmp_path / "a.safetensors"
    flag = {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}
    leaf = {"dtype": "F64", "shape": [2], "data_offsets": [1, 17]}
    header = json.dumps({"params/b": flag, "params/w": leaf}).encode()
    body = b"\1" + np.arange(2.0).tobytes()
    path.write_bytes(struct.pack("<Q", len(header)) + header + body)
    loaded = migrate.load(path)["params"]
    assert loaded["w"].flags.aligned
    assert_identical(loaded, {"b": np.ones(1, bool), "w": np.arange(2.0)})


@pytest.mark.parametrize("options", [{"use_ocdbt": False}, {"use_zarr3": True}])
def test_other_layouts_of_orbax(options, tmp_path):
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
        tree = ocp.args.PyTreeSave({"params": {"w": W}})
        checkpointer.save(tmp_path / "net", args=tree)
    assert_identical(migrate.load(tmp_path / "net"), {"params": {"w": W}})


@pytest.mark.parametrize(
    "how", [{"step_prefix": "ckpt"}, {"step_format_fixed_length": 8}]
)
def test_names_of_steps(how, tmp_path):
    options = ocp.CheckpointManagerOptions(**how)
    with ocp.CheckpointManager(tmp_path / "run", options=options) as manager:
        for step in (3, 20):
            tree = ocp.args.StandardSave({"params": {"w": np.full(1, step)}})
            more = ocp.args.JsonSave({"loss": 1.0})
            manager.save(step, args=ocp.args.Composite(state=tree, meta=more))
        manager.wait_until_finished()
    assert migrate.load(tmp_path / "run")["params"]["w"] == 20
    assert migrate.load(tmp_path / "run", step=3)["params"]["w"] == 3


PACK = flax.serialization.msgpack.packb


def extension(shape, dtype, raw):
    packed = PACK((shape, dtype, raw))
    return flax.serialization.msgpack.ExtType(1, packed)


def pairs(*items):
    """A map of msgpack, of a name twice if need be."""
    head = bytes([0x80 + len(items)])
    return head + b"".join(PACK(name) + value for name, value in items)


def chunked(shape, chunks, **more):
    chunks = {str(i): chunk for i, chunk in enumerate(chunks)}
    sizes = {str(i): size for i, size in enumerate(shape)}
    mark = {"__msgpack_chunked_array__": True, "shape": sizes, "chunks": chunks, **more}
    return flax.serialization.msgpack_serialize({"params": {"w": mark}})


ONE = PACK({"w": extension((1,), "float32", b"1234")})
EIGHT = b"12345678"
MSGPACK = {
    "a name twice": (pairs(("params", ONE), ("params", ONE)), "'params' twice"),
    "a name twice below": (pairs(("params", pairs(("w", ONE), ("w", ONE)))), "twice"),
    "a negative size": (
        PACK({"w": extension((-1,), "f4", b"12345678")}),
        "shape (-1,)",
    ),
    "two of them": (PACK({"w": extension((-2, -1), "f4", b"12345678")}), "shape (-2"),
    "a size that is none": (PACK({"w": extension((True,), "f4", b"1234")}), "shape"),
    "a size too large": (PACK({"w": extension((3,), "f4", b"12345678")}), "reshape"),
    "mixed parts": (chunked([4], [np.ones(2, "f4"), np.ones(2, "f8")]), "do not fit"),
    "parts too few": (chunked([4], [np.ones(2)]), "do not fit"),
    "parts too many": (chunked([2], [np.ones(2), np.ones(1)]), "do not fit"),
    "parts with axes": (chunked([4], [np.ones((2, 2))]), "do not fit"),
    "no parts": (chunked([0], []), "do not fit"),
    "more beside parts": (chunked([2], [np.ones(2)], other=1), "is split into"),
    "a negative size of parts": (chunked([-1], [np.ones(2)]), "shape (-1,)"),
    "two trees": (ONE + ONE, "could not be read"),
}


@pytest.mark.parametrize(("raw", "told"), MSGPACK.values(), ids=MSGPACK)
def test_msgpack_that_flax_reads_wrongly(raw, told, tmp_path):
    path = tmp_path / "a.msgpack"
    path.write_bytes(raw)
    refused(path, told)


def test_parts_of_msgpack_out_of_order_are_refused(tmp_path):
    mark = {"__msgpack_chunked_array__": True, "shape": {"1": 2}, "chunks": {"0": W[0]}}
    path = tmp_path / "a.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize({"params": {"w": mark}}))
    refused(path, "a list in it has the places ['1']")


def test_msgpack_is_read_as_flax_reads_it(tmp_path):
    path = tmp_path / "a.msgpack"
    module = nn.Sequential([nn.Dense(3), nn.BatchNorm(use_running_average=True)])
    trees = [
        module.init(jax.random.key(0), jnp.ones([2, 4])),
        {"a": [1, 2.5, "é", b"\0", None, True, 1j], "b": {"0": {}}},
        {"a": np.float32(3), "b": jnp.ones([], jnp.bfloat16), "c": np.zeros((0, 2))},
    ]
    for tree in trees:
        path.write_bytes(flax.serialization.to_bytes(tree))
        theirs = flax.serialization.msgpack_restore(path.read_bytes())
        if isinstance(theirs.get("a"), dict):  # Flax's lists are dicts of numbers
            assert list(theirs["a"]) == list("0123456")
        ours = migrate.load(path)
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for one, two in zip(
            jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True
        ):
            assert np.asarray(one).tobytes() == np.asarray(two).tobytes()


SAFE = {
    "a name twice": b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
    b'"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    "a gap": b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}',
    "a dtype that NumPy has not": b'{"w":{"dtype":"F6_E2M3","shape":[4],'
    b'"data_offsets":[0,3]}}',
}


@pytest.mark.parametrize("header", SAFE.values(), ids=SAFE)
def test_safetensors_that_are_none(header, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    refused(path, "could not be read")


def test_safetensors_are_mapped_and_stay_when_the_file_is_replaced(tmp_path):
    path = tmp_path / "a.safetensors"
    migrate.save(path, {"params": {"a": np.ones(3, bool), "w": np.arange(5.0)}})
    loaded = migrate.load(path)["params"]
    assert not loaded["a"].flags.owndata
    migrate.save(path, {"params": {"w": np.zeros(5)}})
    path.unlink()
    assert_identical(loaded, {"a": np.ones(3, bool), "w": np.arange(5.0)})


def test_a_save_by_orbax_that_fails_is_told_in_short(tmp_path):
    code = """
import resource, sys
import numpy as np
from hk_bridge import migrate
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
noise = np.random.default_rng(0).normal(size=500_000)
migrate.save(sys.argv[1], {"params": {"w": noise}})
"""
    command = [sys.executable, "-c", code, str(tmp_path / "net")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) < 20, done.stderr
    assert "CheckpointError" in done.stderr
    assert os.listdir(tmp_path) == []


# Trees with arrays on top, as parameters alone may be: there and back, or refused.

PARTS = st.one_of(
    st.sampled_from(["params", "cache", "value"]), st.text("a./%~_", max_size=3)
)
LEVELS = st.recursive(
    st.just(W), lambda inner: st.dictionaries(PARTS, inner, max_size=3), max_leaves=6
)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".msgpack"])
@given(tree=st.dictionaries(PARTS, LEVELS, max_size=3))
@settings(max_examples=100, deadline=None)
@example(tree={"params.a": W})
@example(tree={"a%": W, "b/c": W})
@example(tree={"params": {}, "a": W})
def test_any_tree_survives(tree, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"a{suffix}"
        try:
            migrate.save(path, tree)
        except hk_bridge.VariablesError:
            assert not path.exists()
        else:
            assert_identical(migrate.load(path), tree)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("separator", [".", "/"])
@given(tree=st.dictionaries(PARTS, LEVELS, max_size=3))
@settings(max_examples=60, deadline=None)
def test_any_tree_survives_joined_or_is_refused(tree, separator, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"a{suffix}"
        try:
            migrate.save(path, tree, separator=separator)
        except hk_bridge.VariablesError:
            assert not path.exists()
        else:
            assert_identical(migrate.load(path, separator=separator), tree)


@pytest.mark.parametrize("name", ["file", "allow_pickle", "self", "arr_0", "args"])
def test_names_that_numpys_savez_has_itself(name, tmp_path):
    tree = {name: W}
    migrate.save(tmp_path / "a.npz", tree)
    assert_identical(migrate.load(tmp_path / "a.npz"), tree)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npz")[name], W)


@pytest.mark.parametrize("name", ["a.safetensors", "model.safetensors.index.json"])
def test_the_name_that_safetensors_has_itself(name, tmp_path):
    with pytest.raises(hk_bridge.VariablesError, match="an array of that name"):
        migrate.save(tmp_path / name, {"__metadata__": W})
    assert not list(tmp_path.iterdir())
    if not name.endswith(".json"):
        tree = {"__metadata__": {"__metadata__": W}}
        migrate.save(tmp_path / name, tree)
        assert_identical(migrate.load(tmp_path / name), tree)


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ""])
@pytest.mark.parametrize("collection", [5, [1], {"params": 1, 2: 1}, b"params"])
def test_collections_that_are_no_names(suffix, collection, tmp_path):
    migrate.save(tmp_path / f"a{suffix}", TREE)
    with pytest.raises(ValueError, match="collection= is a name like 'params'"):
        migrate.load(tmp_path / f"a{suffix}", collection=collection)
    assert migrate.load(tmp_path / f"a{suffix}", collection=()) == {}


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ""])
def test_bits_that_jax_has_not_are_refused_in_each_format(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    migrate.save(path, {"params": {"w": W, "i": np.arange(2, dtype=np.int32)}})
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with pytest.raises(hk_bridge.VariablesError, match="which JAX would cut to 32"):
        migrate.load(path, shardings=sharding, dtype="float64")
    loaded = migrate.load(path, shardings=sharding, dtype="bfloat16")["params"]
    assert loaded["w"].dtype == jnp.bfloat16
    assert loaded["i"].dtype == np.int32


@pytest.mark.parametrize("key", [True, None, 1.5, b"a", ("a",)])
def test_a_key_that_is_no_name_is_told(key, tmp_path):
    for tree in ({"params": {key: W}}, {"params": {0: W, key: W}}, {key: {"w": W}}):
        with pytest.raises(hk_bridge.VariablesError, match="a dict with the key") as e:
            migrate.save(tmp_path / "a.npz", tree)
        assert f"the key {key!r}" in str(e.value)
