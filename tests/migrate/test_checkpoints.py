"""Checkpoints: exact there and back, refused by name, whole or not at all."""

import enum
import io
import itertools
import json
import os
import pathlib
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any
import zipfile

import flax
import flax.linen as nn
from flax.training import train_state
import haiku as hk
from hypothesis import assume
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

import hk_bridge
from hk_bridge import migrate
from hk_bridge.migrate import _files
from hk_bridge.migrate import _format

SUFFIXES = {
    "msgpack": ".msgpack",
    "safetensors": ".safetensors",
    "npz": ".npz",
    "orbax": "",
}
FILES = ["msgpack", "safetensors", "npz"]
NUMPY = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
    *("uint64", "float16", "float32", "float64", "complex64"),
]
FLOAT8 = [
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    "float8_e8m0fnu",
]
TENSORSTORE = ["float4_e2m1fn", "float8_e3m4", "float8_e4m3b11fnuz", "int2", "int4"]
RARE = ["float8_e4m3", "uint2", "uint4"]
DTYPES = {
    "msgpack": [*NUMPY, "complex128", "bfloat16", *FLOAT8, *TENSORSTORE, *RARE],
    "safetensors": [*NUMPY, "bfloat16", *FLOAT8],
    "npz": [*NUMPY, "complex128", "bfloat16"],
    "orbax": [*NUMPY, "complex128", "bfloat16", *FLOAT8, *TENSORSTORE],
}
EVERY_FORMAT = pytest.mark.parametrize("kind", SUFFIXES)
EVERY_FILE = pytest.mark.parametrize("kind", FILES)
VARIABLES: Any = {
    "params": {"Dense_0": {"kernel": np.arange(6.0).reshape(2, 3), "bias": np.ones(3)}},
    "batch_stats": {"mean": np.float32(0.5) * np.ones(3, np.float32)},
}


def place(folder, kind):
    return pathlib.Path(folder) / f"net{SUFFIXES[kind]}"


def array(dtype, shape, seed=0):
    """Any bits that `dtype` has; NaNs too."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    if dtype.name in ("bool", "int2", "int4", "uint2", "uint4"):
        return (np.arange(count) % 2).astype(dtype).reshape(shape)
    if dtype.name.startswith(("float4_", "float6_")):
        return np.ones(count).astype(dtype).reshape(shape)
    raw = np.random.default_rng(seed).bytes(count * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


def assert_same(ours, theirs):
    """Same structure, types, dtypes, shapes and bits."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for key, value in theirs.items():
            assert_same(ours[key], value)
    elif isinstance(theirs, np.ndarray):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()
    else:
        assert ours == theirs


def round_trip(variables, kind):
    with tempfile.TemporaryDirectory() as folder:
        migrate.save(place(folder, kind), variables)
        assert os.listdir(folder) == [f"net{SUFFIXES[kind]}"]
        return migrate.load(place(folder, kind))


# There and back.

TEXT = st.one_of(st.text(max_size=3), st.text("/%~_.0a2F7E5\0", max_size=3))


def trees(kind):
    leaves = st.builds(
        array,
        st.sampled_from(DTYPES[kind]),
        st.sampled_from([(), (2,), (2, 3), *([] if kind == "orbax" else [(0, 3)])]),
        st.integers(0, 9),
    )
    names = TEXT.filter(lambda name: "\0" not in name) if kind == "npz" else TEXT
    level = st.dictionaries(names, leaves, max_size=3)
    tree = st.recursive(
        level, lambda inner: st.dictionaries(names, leaves | inner, max_size=3)
    )
    return st.dictionaries(names, tree, min_size=kind == "orbax", max_size=3)


def dotted(tree, prefix=()):
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from dotted(value, (*prefix, name))
        else:
            yield ".".join((*prefix, name)).removesuffix("/")


@given(trees("msgpack"))
@settings(deadline=None)
@example({})
@example({"params": {}})
def test_msgpack_round_trip(tree):
    assert_same(round_trip(tree, "msgpack"), tree)


@given(trees("safetensors"))
@settings(deadline=None)
@example({})
@example({"params": {}})
@example({"__metadata__": {"": {"": np.ones(2)}}})
def test_safetensors_round_trip(tree):
    assert_same(round_trip(tree, "safetensors"), tree)


@given(trees("npz"))
@settings(deadline=None)
@example({})
@example({"params": {}})
@example({"params": {"w": np.ones(1), "w.npy": np.zeros(2), "file": np.ones(3)}})
@example({"file": {"": np.ones(1)}, "allow_pickle": {}})
def test_npz_round_trip(tree):
    assert_same(round_trip(tree, "npz"), tree)


@given(trees("orbax"))
@example({"params": {}})
@example({"params": {"w": np.ones(1), "w/0": np.zeros(1)}})
@settings(max_examples=40, deadline=None)
def test_orbax_round_trip(tree):
    flat = list(dotted(tree))
    assume(len(flat) == len(set(flat)))
    assert_same(round_trip(tree, "orbax"), tree)


@EVERY_FORMAT
def test_every_dtype_shape_and_memory_order(kind):
    shapes = [(), (3,), (2, 3)] if kind == "orbax" else [(), (3,), (2, 3), (0, 3)]
    tree = {
        dtype: {str(shape): array(dtype, shape) for shape in shapes}
        for dtype in DTYPES[kind]
    }
    transposed = np.arange(6.0).reshape(2, 3).T
    tree["order"] = {"F": transposed, "strided": np.arange(9)[::2]}
    back = round_trip(tree, kind)
    assert_same(back, tree)
    np.testing.assert_array_equal(back["order"]["F"], transposed)


@EVERY_FORMAT
def test_jax_arrays_sharded_ones_and_scalars_become_numpy(kind):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("x"))
    tree = {
        "a": jnp.arange(3),
        "b": jnp.float32(2),
        "s": jax.device_put(jnp.arange(16), sharding),
        "n": np.float64(3),
        "t": jnp.arange(6.0).reshape(2, 3).T,
    }
    back = round_trip({"params": tree}, kind)
    assert_same(back, {"params": {k: np.asarray(v) for k, v in tree.items()}})


@EVERY_FORMAT
def test_boxes_are_opened_and_frozen_dicts_become_dicts(kind):
    box = nn.Partitioned(nn.Partitioned(jnp.ones(2), ("y",)), ("x",))
    given = flax.core.freeze({"params": {"a": box, "e": {}}})
    back = round_trip(given, kind)
    assert_same(back, {"params": {"a": np.ones(2, np.float32), "e": {}}})
    assert type(given["params"]["a"]) is nn.Partitioned


@EVERY_FORMAT
def test_names_are_what_they_are_as_strings(kind):
    class Name(str, enum.Enum):  # noqa: UP042, as many write it
        A = "a"

    back = round_trip({"params": {Name.A: np.ones(2), np.str_("b"): {}}}, kind)
    assert_same(back, {"params": {"a": np.ones(2), "b": {}}})


def test_msgpack_keeps_python_scalars_and_none():
    plain = {
        "b": True,
        "i": -(2**63),
        "f": 0.1,
        "c": 1j,
        "s": "é",
        "y": b"\0",
        "n": None,
    }
    assert_same(round_trip({"params": plain}, "msgpack"), {"params": plain})


def test_msgpack_splits_large_arrays(monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 32)
    assert_same(round_trip(VARIABLES, "msgpack"), VARIABLES)


@EVERY_FORMAT
def test_arguments_are_not_changed(kind):
    leaf = jnp.ones(2)
    variables = {"params": {"w": leaf}}
    round_trip(variables, kind)
    assert variables["params"]["w"] is leaf


@EVERY_FORMAT
def test_a_trained_network_goes_to_disk_and_back(kind, tmp_path):
    module = nn.Sequential([nn.Dense(3), nn.BatchNorm(use_running_average=True)])
    f = hk.transform_with_state(lambda x: hk_bridge.FlaxModule(module, name="net")(x))
    x = jnp.ones((2, 4))
    params, state = f.init(jax.random.key(0), x)
    path = place(tmp_path, kind)
    migrate.save(path, hk_bridge.to_flax(params, state, name="net"))
    loaded = migrate.load(str(path))
    again = hk_bridge.to_haiku(loaded, name="net")
    want, _ = f.apply(params, state, None, x)
    got, _ = f.apply(*again, None, x)
    assert np.asarray(got).tobytes() == np.asarray(want).tobytes()
    native = module.apply(loaded, x)
    assert np.asarray(native).tobytes() == np.asarray(want).tobytes()


# The libraries themselves read what was saved, and what they save is read.


def test_the_libraries_read_it(tmp_path):
    for kind in SUFFIXES:
        migrate.save(place(tmp_path, kind), VARIABLES)
    raw = place(tmp_path, "msgpack").read_bytes()
    assert_same(flax.serialization.msgpack_restore(raw), VARIABLES)
    flat = {
        "params/Dense_0/kernel": VARIABLES["params"]["Dense_0"]["kernel"],
        "params/Dense_0/bias": VARIABLES["params"]["Dense_0"]["bias"],
        "batch_stats/mean": VARIABLES["batch_stats"]["mean"],
    }
    assert_same(safetensors.numpy.load_file(place(tmp_path, "safetensors")), flat)
    with np.load(place(tmp_path, "npz")) as archive:
        assert_same(dict(archive), flat)
    with ocp.StandardCheckpointer() as checkpointer:
        assert_same(checkpointer.restore(place(tmp_path, "orbax")), VARIABLES)


def test_what_the_libraries_save_is_read(tmp_path):
    state = train_state.TrainState.create(
        apply_fn=None, params={"w": jnp.ones(2)}, tx=optax.adam(0.1)
    )
    path = tmp_path / "state.MSGPACK"
    path.write_bytes(flax.serialization.to_bytes(state))
    assert_same(migrate.load(path)["params"], {"w": np.ones(2, np.float32)})
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(
            tmp_path / "orbax", {"step": 3, "none": None, "l": [jnp.ones(2)]}
        )
    loaded = migrate.load(tmp_path / "orbax")
    assert loaded["step"] == 3
    assert loaded["none"] is None
    assert_same(loaded["l"][0], np.ones(2, np.float32))
    np.savez_compressed(tmp_path / "a.npz", **{"params/w": np.zeros(999)})
    assert_same(migrate.load(tmp_path / "a.npz"), {"params": {"w": np.zeros(999)}})


@pytest.mark.parametrize("dtype", ["float32", "int16", "complex128"])
def test_another_byte_order_becomes_the_machines(dtype, tmp_path):
    native = array(dtype, (2, 3))
    swapped = native.astype(native.dtype.newbyteorder("S"))
    np.savez(tmp_path / "a.npz", **{"params/w": swapped})
    assert_same(migrate.load(tmp_path / "a.npz"), {"params": {"w": native}})


# Sharded.


@EVERY_FORMAT
@pytest.mark.parametrize("how", ["one", "prefix", "each"])
def test_a_sharded_load_lands_in_haikus_layout(kind, how, tmp_path):
    module = nn.Dense(8, kernel_init=nn.with_partitioning(nn.initializers.ones, ("x",)))
    key, x = jax.random.key(0), jnp.ones((2, 8))
    variables = module.init(key, x)
    migrate.save(place(tmp_path, kind), variables)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("x"))
    shardings: Any = {
        "one": sharding,
        "prefix": {"params": sharding, "other": None},
        "each": nn.get_sharding(jax.eval_shape(module.init, key, x), mesh),
    }[how]
    loaded = migrate.load(place(tmp_path, kind), shardings=shardings)
    params, _ = hk_bridge.to_haiku(loaded, name="net")
    kernel = params["net"]["kernel"]
    assert kernel.sharding == sharding
    assert kernel.addressable_shards[0].data.shape == (1, 8)
    assert kernel is loaded["params"]["kernel"]
    assert params["net"]["bias"].sharding.mesh == mesh
    np.testing.assert_array_equal(kernel, nn.unbox(variables)["params"]["kernel"])


@EVERY_FORMAT
def test_a_leaf_without_sharding_and_lost_bits_are_refused(kind, tmp_path):
    path = place(tmp_path, kind)
    migrate.save(path, VARIABLES)
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    with pytest.raises(hk_bridge.VariablesError, match="float64.*jax_enable_x64"):
        migrate.load(path, shardings=one)
    with pytest.raises(
        hk_bridge.VariablesError,
        match="None for collection 'params', path 'Dense_0/.*Sharding was expected",
    ):
        migrate.load(path, shardings={"params": {}, "batch_stats": one})


@EVERY_FORMAT
@pytest.mark.parametrize("spec", [("x",), (None, "x"), (None, None)], ids=str)
def test_a_sharding_that_does_not_fit_is_refused(kind, spec, tmp_path):
    path = place(tmp_path, kind)
    migrate.save(path, {"params": {"a": {"w": np.ones(6, np.float32)}}})
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P(*spec))
    with pytest.raises(hk_bridge.VariablesError) as caught:
        migrate.load(path, shardings={"params": sharding})
    assert str(caught.value) == (
        f"shardings= has {sharding!r} for collection 'params', path 'a/w', which "
        "cannot split an array of shape (6,). Give one that names no more axes than "
        "the array has, and splits each into equal parts: jax.P(), say, splits none."
    )


# Refused before anything is written.


@flax.struct.dataclass
class Couple:
    one: Any
    two: Any


REFUSED = {
    "tuple": ((np.ones(1), np.ones(1)), "a builtins.tuple"),
    "list": ([1, 2], "a builtins.list"),
    "dataclass": (Couple(1, 2), "a test_checkpoints.Couple"),
    "key": (jax.random.key(0), r"a key<fry> array.*jax\.random\.key_data"),
    "odd_keys": ({0.5: np.ones(1)}, "a builtins.dict"),
    "shape": (jax.ShapeDtypeStruct((1,), "float32"), "ShapeDtypeStruct"),
    "object": (np.array([None]), "a object array"),
    "text": (np.array(["a"]), "a <U1 array"),
    "date": (np.array(["2020"], "datetime64[Y]"), r"a datetime64\[Y\] array"),
    "record": (np.zeros(1, [("a", "f4")]), "a .*'a'.* array"),
    "void": (np.zeros(1, "V2"), "a |V2 array"),
    "big_endian": (np.ones(1, ">f4"), r"a >f4 array.*leaf\.astype"),
    "masked": (np.ma.masked_array([1.0], [True]), "MaskedArray"),
}
ARRAYS_ONLY = {
    "none": (None, "a builtins.NoneType"),
    "int": (1, "a builtins.int"),
    "float": (1.5, "a builtins.float"),
    "bool": (True, "a builtins.bool"),
    "str": ("a", "a builtins.str"),
    "uint4": (array("uint4", (2,)), "a uint4 array"),
    "float6": (array("float6_e2m3fn", (2,)), "a float6_e2m3fn array"),
}
SOME = {
    "npz": {name: (array(name, (2,)), f"a {name} array") for name in DTYPES["msgpack"]},
    "safetensors": {
        "complex128": (np.ones(1, complex), "a complex128 array"),
        "int4": (array("int4", (2,)), "a int4 array"),
    },
    "orbax": {"no_size": (np.ones((0, 2)), r"an array of shape \(0, 2\)")},
    "msgpack": {},
}
SOME["npz"] = {k: v for k, v in SOME["npz"].items() if k not in DTYPES["npz"]}
CASES = [
    pytest.param(kind, *case, id=f"{kind}-{name}")
    for kind in SUFFIXES
    for name, case in {
        **REFUSED,
        **({} if kind == "msgpack" else ARRAYS_ONLY),
        **SOME[kind],
    }.items()
]


def refuse(folder, kind, variables, match):
    """`save` refuses, and leaves the folder as it was."""
    with pytest.raises(hk_bridge.VariablesError, match=match) as caught:
        migrate.save(place(folder, kind), variables)
    assert os.listdir(folder) == []
    return str(caught.value)


@pytest.mark.parametrize(("kind", "leaf", "what"), CASES)
def test_a_leaf_that_a_format_cannot_hold_is_refused(kind, leaf, what, tmp_path):
    variables = {"params": {"ok": np.ones(1), "a": {"w": leaf}}}
    where = "collection 'params', path 'a/w': "
    message = refuse(tmp_path, kind, variables, f"cannot hold.*{where}.*{what}")
    assert "Nothing was written" in message
    assert (".msgpack" in message) == (kind != "msgpack")


@EVERY_FORMAT
def test_a_tracer_is_refused(kind, tmp_path):
    def f(x):
        migrate.save(place(tmp_path, kind), {"params": {"w": x}})

    with pytest.raises(hk_bridge.VariablesError, match="path 'w': a .*Tracer"):
        jax.jit(f)(jnp.ones(1))


@EVERY_FORMAT
@pytest.mark.parametrize(
    ("variables", "what"),
    [
        ([1], "must be a dict of collections"),
        ({"params": np.ones(1)}, "collection 'params' must be a dict"),
        ({"params": {"\ud800": np.ones(1)}}, "a name that is no valid Unicode"),
        ({"\ud800": {}}, "a name that is no valid Unicode"),
    ],
)
def test_wrong_variables_are_refused(kind, variables, what, tmp_path):
    refuse(tmp_path, kind, variables, what)


@pytest.mark.parametrize("leaf", [2**64, -(2**63) - 1, "\ud800"])
def test_scalars_that_msgpack_cannot_pack_are_refused(leaf, tmp_path):
    refuse(tmp_path, "msgpack", {"params": {"w": leaf}}, "path 'w': a builtins")


def test_small_jax_dtypes_survive():
    for kind in ("msgpack", "orbax"):
        dtypes = (jnp.int4, jnp.float8_e4m3fn, jnp.bfloat16)
        tree = {str(i): jnp.ones(3, dtype) for i, dtype in enumerate(dtypes)}
        back = round_trip({"params": tree}, kind)
        assert_same(back, {"params": {k: np.asarray(v) for k, v in tree.items()}})


def test_names_that_a_format_would_change_are_refused(tmp_path):
    mark = "__msgpack_chunked_array__"
    refuse(tmp_path, "msgpack", {"params": {mark: np.ones(1)}}, f"a name with '{mark}'")
    refuse(tmp_path, "npz", {"params": {"a\0": np.ones(1)}}, r"a name with '\\x00'")
    one = {"params": {"a.b": np.ones(1), "a": {"b": np.ones(2)}}}
    refuse(tmp_path, "orbax", one, "path 'a/b': .*mixes with .*path 'a.b'")
    one = {"params": {"a": np.ones(1), "a/": np.ones(2)}}
    refuse(tmp_path, "orbax", one, "path 'a/': .*mixes with .*path 'a'")
    refuse(tmp_path, "orbax", {}, "the top: variables without a collection")


# A file that is no whole, safe checkpoint.


def unreadable(path, match):
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(migrate.CheckpointError, match=match) as caught:
        migrate.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert before is None or path.read_bytes() == before
    return caught.value


def read_or_refused(path):
    try:
        return isinstance(migrate.load(path), dict)
    except migrate.CheckpointError as error:
        return str(path) in str(error)


@EVERY_FILE
def test_a_truncated_file_is_refused(kind, tmp_path):
    path = place(tmp_path, kind)
    migrate.save(path, VARIABLES)
    whole = path.read_bytes()
    for size in {*range(0, len(whole), 7), len(whole) - 1}:
        path.write_bytes(whole[:size])
        error = unreadable(path, "could not be read as a whole .* if it was cut short")
        assert isinstance(error.__cause__, Exception)


@EVERY_FILE
@given(content=st.binary(max_size=60))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_read_or_refused(kind, content):
    with tempfile.TemporaryDirectory() as folder:
        path = place(folder, kind)
        path.write_bytes(content)
        assert read_or_refused(path)


@EVERY_FILE
@given(data=st.data())
@settings(max_examples=50, deadline=None)
def test_a_changed_byte_gives_a_tree_or_a_clear_error(kind, data):
    with tempfile.TemporaryDirectory() as folder:
        path = place(folder, kind)
        migrate.save(path, VARIABLES)
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.integers(0, 255)
        )
        path.write_bytes(content)
        assert read_or_refused(path)


@pytest.mark.parametrize(("one", "two"), [*itertools.permutations(FILES, 2)])
def test_a_file_of_another_format_is_refused(one, two, tmp_path):
    migrate.save(place(tmp_path, one), VARIABLES)
    place(tmp_path, one).rename(place(tmp_path, two))
    error = unreadable(place(tmp_path, two), "suffix of its format")
    assert "pickle" not in str(error)  # NumPy's advice for what it does not know


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil",))


def test_the_code_of_pickles_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects = np.array([Evil()], object)
    np.savez(tmp_path / "a.npz", **{"params/w": objects})
    unreadable(tmp_path / "a.npz", "allow_pickle=False")
    for name in ("b.npz", "b.msgpack", "b.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Evil()))
        unreadable(tmp_path / name, "could not be read")
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(Evil()))
    unreadable(tmp_path / "b.pkl", "it names posix.mkdir, which is no array")
    assert not (tmp_path / "evil").exists()


def test_hostile_archives_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, **{"params/w": np.zeros(100_000)})
    assert migrate.load(path)["params"]["w"].shape == (100_000,)
    monkeypatch.setattr(_format, "_BOMB", 1000)
    unreadable(path, "unpack to 800128 bytes, over 100 times")

    def archive(name, content):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr(name, content)

    archive("params/w.npy", b"no array")
    unreadable(path, "member 'params/w.npy' is no array")
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    archive("params/w.npy", buffer.getvalue())
    unreadable(path, "could not be read")
    np.savez(path, **{"params/w": array("float8_e5m2", (2,))})
    unreadable(path, "descr is not a valid dtype descriptor")
    with path.open("wb") as file:
        np.save(file, np.ones(2))
    unreadable(path, "BadZipFile: File is not a zip file")


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["a", "a/b"], "below a name that is an array|an array as well as a dict"),
        (["a/b", "a"], "below a name that is an array|an array as well as a dict"),
        (["params/%zz"], "not a name that hk_bridge writes"),
        (["net/~/linear"], "not a name that hk_bridge writes"),
        (["params//w"], "not a name that hk_bridge writes"),
        (["params/"], "not a name that hk_bridge writes"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_flat_names_that_are_no_tree_are_refused(kind, names, what, tmp_path):
    path = place(tmp_path, kind)
    flat = {name: np.ones(2) for name in names}
    if kind == "npz":
        np.savez(path, **flat)
    else:
        safetensors.numpy.save_file(flat, path)
    unreadable(path, what)


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 2**40]}},
        {"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
        {"w": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}},
        {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
        | {"v": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}},
        {"w": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}},
        [],
    ],
)
def test_hostile_safetensors_are_refused(header, tmp_path):
    path = tmp_path / "a.safetensors"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"1234")
    unreadable(path, "could not be read")
    path.write_bytes(struct.pack("<Q", 2**63) + text)
    unreadable(path, "could not be read")


@pytest.mark.parametrize(
    "tree",
    [
        [1],
        3,
        None,
        {0: {"w": 1}},
        {"params": {0.5: 1}},
        {"params": {"__msgpack_chunked_array__": True, "shape": {"0": 9**9}}},
    ],
)
def test_msgpack_that_is_no_tree_is_refused(tree, tmp_path):
    path = tmp_path / "a.msgpack"
    path.write_bytes(flax.serialization.msgpack.packb(tree))
    unreadable(path, "could not be read")


def test_hostile_msgpack_is_refused(tmp_path):
    path = tmp_path / "a.msgpack"
    msgpack = flax.serialization.msgpack
    path.write_bytes(b"\x81\xa1a" * 100_000)  # a dict in a dict in a dict ...
    unreadable(path, "could not be read")
    for shape, dtype, raw in (
        ((2**60,), "float32", b"1234"),
        ((1,), "O", b"12345678"),
        ((1,), "U1", b"1234"),
        ((1,), "no_dtype", b"1234"),
    ):
        leaf = msgpack.ExtType(1, msgpack.packb((shape, dtype, raw)))
        path.write_bytes(msgpack.packb({"params": {"w": leaf}}))
        unreadable(path, "could not be read")
    path.write_bytes(msgpack.packb({"params": {"w": msgpack.ExtType(77, b"")}}))
    unreadable(path, "ExtType at 'params/w', which is no leaf")


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path):
    unreadable(tmp_path, "a file _METADATA was expected in it, or one of .*It has none")
    migrate.save(tmp_path / "run" / "net", VARIABLES)
    inside = str(tmp_path / "run" / "net")
    unreadable(tmp_path / "run", f"some inside. Load one of '{inside}'")
    assert_same(migrate.load(inside), VARIABLES)


@pytest.mark.parametrize("damaged", ["_METADATA", "manifest.ocdbt", "d/*", "*/d/*"])
def test_a_damaged_orbax_directory_is_refused(damaged, tmp_path):
    path = tmp_path / "net"
    migrate.save(path, {"params": {"w": array("float64", (99, 99))}})
    for file in path.glob(damaged):
        os.truncate(file, file.stat().st_size // 2)
    unreadable(path, "could not be read as a whole Orbax checkpoint")


def test_a_hostile_orbax_directory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "net"
    migrate.save(path, {"params": {"w": np.zeros(1_000_000)}})
    assert migrate.load(path)["params"]["w"].shape == (1_000_000,)
    monkeypatch.setattr(_format, "_BOMB", 1000)
    unreadable(path, "unpack to 8000000 bytes, over 100 times")


@EVERY_FORMAT
def test_nothing_there(kind, tmp_path):
    with pytest.raises(FileNotFoundError):
        migrate.load(place(tmp_path, kind))


def test_a_file_of_unknown_suffix_is_refused(tmp_path):
    path = tmp_path / "net.ckpt"
    path.write_bytes(b"")
    unreadable(
        path, "'.ckpt', which tells no format.*.msgpack, .safetensors, .npz, .pkl or a"
    )
    with pytest.raises(FileExistsError) as caught:
        migrate.save(path, VARIABLES)
    assert str(caught.value) == (
        f"{path} is a file with the suffix '.ckpt', which tells no format, and an "
        "Orbax directory replaces no file. Give it one of .msgpack, .safetensors, "
        ".npz, or choose a new name."
    )
    assert path.read_bytes() == b""


# Whole, or not at all.

NEW: Any = {"params": {"w": np.arange(1_000_000.0)}}


@EVERY_FILE
def test_a_file_is_replaced(kind, tmp_path):
    path = place(tmp_path, kind)
    link = tmp_path / f"link{SUFFIXES[kind]}"
    link.symlink_to(path)
    migrate.save(path, VARIABLES)
    migrate.save(link, NEW)
    assert link.is_symlink()
    assert_same(migrate.load(path), NEW)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()
    assert len(os.listdir(tmp_path)) == 2


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@EVERY_FILE
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_the_mode_of_a_file_that_is_replaced_stays(kind, mode, tmp_path, monkeypatch):
    path = place(tmp_path, kind)
    migrate.save(path, VARIABLES)
    path.chmod(mode)
    seen = []

    def fsync(file):
        (new,) = set(tmp_path.iterdir()) - {path}
        seen.append(new.stat().st_mode & 0o777)

    monkeypatch.setattr(os, "fsync", fsync)
    migrate.save(path, NEW)
    assert path.stat().st_mode & 0o777 == mode
    assert seen == [0o600]  # until it is whole
    assert_same(migrate.load(path), NEW)


def test_a_directory_is_never_replaced(tmp_path, monkeypatch):
    def refused(path):
        with pytest.raises(FileExistsError) as caught:
            migrate.save(path, NEW)
        return str(caught.value)

    exists = "exists, and a directory cannot be replaced at once. Choose a new name"
    path = place(tmp_path, "orbax")
    migrate.save(path, VARIABLES)
    assert refused(path) == (
        f"{path} {exists}, or remove this checkpoint: shutil.rmtree({str(path)!r})."
    )
    assert_same(migrate.load(path), VARIABLES)
    (tmp_path / "link").symlink_to("nowhere")
    for other in (tmp_path, tmp_path / "link"):
        assert refused(other) == f"{other} {exists}."
    monkeypatch.chdir(path)
    assert refused(".") == f". {exists}."


@EVERY_FORMAT
def test_a_write_that_fails_leaves_the_old_file(kind, tmp_path):
    path = place(tmp_path, kind)
    if kind != "orbax":
        migrate.save(path, VARIABLES)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).normal(size=500_000)  # Orbax compresses
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises((OSError, migrate.CheckpointError), match="too large|wri"):
            migrate.save(path, {"params": {"w": noise}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    if kind == "orbax":
        assert not path.exists()
    else:
        assert os.listdir(tmp_path) == [path.name]
        assert_same(migrate.load(path), VARIABLES)


def test_a_folder_that_is_not_there(tmp_path):
    for kind in FILES:
        path = place(tmp_path / "none", kind)
        with pytest.raises(FileNotFoundError) as caught:
            migrate.save(path, VARIABLES)
        assert str(caught.value) == f"[Errno 2] No such file or directory: '{path}'"


KILLED = """
import os, resource, signal, sys, time
import numpy as np
from hk_bridge import migrate
path, how = sys.argv[1:]
noise = np.random.default_rng(0).normal(size=500_000)
if how == "writing":  # the kernel kills who writes more than 1 MB to a file
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
else:  # all is written, but not in place
    os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
migrate.save(path, {"params": {"w": noise}})
"""


@pytest.mark.parametrize(
    ("kind", "how"),
    [*((kind, "writing") for kind in SUFFIXES), ("msgpack", "replacing")],
)
def test_a_killed_save_leaves_the_old_file(kind, how, tmp_path):
    path = place(tmp_path, kind)
    if kind != "orbax":
        migrate.save(path, VARIABLES)
    command = [sys.executable, "-c", KILLED, str(path), how]
    died = subprocess.run(command, timeout=60, capture_output=True, check=False)
    expected = signal.SIGXFSZ if how == "writing" else signal.SIGKILL
    assert died.returncode == -expected, died.stderr
    hidden = [name for name in os.listdir(tmp_path) if name != path.name]
    assert hidden  # what was written so far
    assert kind == "orbax" or all(name.startswith(".") for name in hidden)
    if kind == "orbax":
        assert not path.exists()
    else:
        assert_same(migrate.load(path), VARIABLES)
    migrate.save(path, NEW)
    assert_same(migrate.load(path), NEW)


# Extras, and progress.


@pytest.mark.parametrize(
    ("kind", "package"), [("safetensors", "safetensors"), ("orbax", "orbax")]
)
def test_a_missing_library_is_named(kind, package, tmp_path, monkeypatch):
    path = place(tmp_path, kind)
    migrate.save(path, VARIABLES)
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    line = rf"needs {package} .* pip install 'hk_bridge\[checkpoint\]'\.$"
    with pytest.raises(ModuleNotFoundError, match=line):
        migrate.load(path)
    with pytest.raises(ModuleNotFoundError, match=line):
        migrate.save(place(tmp_path / "..", kind).with_stem("new"), VARIABLES)


@EVERY_FORMAT
def test_progress_is_shown_on_stderr(kind, tmp_path, capsys):
    path = place(tmp_path, kind)
    migrate.save(path, NEW, progress=True)
    migrate.load(path, progress=True)
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.count(path.name) >= 2
    assert "100%" in captured.err


def test_a_save_is_followed_while_it_writes(tmp_path, capsys):
    class Slow:
        """Bytes on disk that grow."""

        def __init__(self):
            self.sizes = iter([10, 60])

        def __call__(self):
            return next(self.sizes, 60)

    path = tmp_path / "net.npz"
    with _files.progress_bar(path, 100, True, Slow()):
        time.sleep(0.5)
    assert " 60%" in capsys.readouterr().err


@EVERY_FORMAT
def test_progress_is_quiet_by_default(kind, tmp_path, capsys, monkeypatch):
    path = place(tmp_path, kind)
    migrate.save(path, NEW)
    migrate.load(path)
    monkeypatch.setattr(_files, "_LARGE", 0)
    migrate.load(path)  # no terminal
    migrate.load(path, progress=False)
    assert path.name not in capsys.readouterr().err


def test_without_tqdm(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_LARGE", 0)
    monkeypatch.setitem(sys.modules, "tqdm", None)
    path = tmp_path / "net.npz"
    migrate.save(path, VARIABLES)
    assert_same(migrate.load(path), VARIABLES)
    with pytest.raises(ModuleNotFoundError, match="needs tqdm"):
        migrate.load(path, progress=True)
