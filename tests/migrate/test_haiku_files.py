"""The checkpoints of Haiku code bases: as they were written, and as we write them."""

import collections
import gzip
import os
import pathlib
import pickle
import struct
import tempfile
from typing import Any

import flax
import haiku as hk
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import joblib
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

import hk_bridge
from hk_bridge import migrate
from hk_bridge.migrate._unpickle import KNOWN

OLD = pathlib.Path(__file__).parent.parent / "data" / "jax_0_4_13"
PARAMS: Any = {
    "mlp/~/linear_0": {"w": np.arange(6.0, dtype="f4").reshape(2, 3), "b": np.ones(3)},
    "norm": {"scale": np.full([], 2, np.float32)},
}
STATE: Any = {"norm/~/mean_ema": {"average": np.zeros(3), "counter": np.int32(4)}}
STATE["norm/~/mean_ema"]["counter"] = np.asarray(STATE["norm/~/mean_ema"]["counter"])


def expected():
    """What the files of old hold, by NumPy's own reader."""
    trees: Any = {"params": {}, "state": {}}
    with np.load(OLD / "expected.npz") as archive:
        for name, leaf in archive.items():
            which, module, last = name.split(":")
            trees[which].setdefault(module, {})[last] = leaf
    return trees["params"], trees["state"]


def assert_same(ours, theirs):
    """Same structure, plain types, dtypes, shapes and bits."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, (dict, tuple)):
        assert len(ours) == len(theirs)
        keys = theirs if isinstance(theirs, dict) else range(len(theirs))
        for key in keys:
            assert_same(ours[key], theirs[key])
        return
    assert type(ours) is np.ndarray
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert ours.tobytes() == theirs.tobytes()


def refused(path, *parts):
    with pytest.raises(migrate.CheckpointError) as caught:
        migrate.load_haiku(path)
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# Written long ago: see tests/data/jax_0_4_13/make.py.

PAIRS = [
    *(f"pair_{protocol}.pkl" for protocol in (2, 3, 4, 5)),
    *("everything.pickle", "two_dumps.pkl", "numpy.joblib", "jax.joblib"),
    *(f"{name}.joblib" for name in ("zlib", "gzip", "bz2", "xz", "lzma")),
    *("recipe", "acme"),
]
ALONE = ["params.pkl", "flat_mapping.pkl", "numpy.pkl", "jax_0_3.pkl"]


@pytest.mark.parametrize("name", PAIRS)
def test_params_and_state_of_old(name):
    assert_same(migrate.load_haiku(OLD / name), expected())


@pytest.mark.parametrize("name", ALONE)
def test_params_of_old(name):
    assert_same(migrate.load_haiku(OLD / name), (expected()[0], {}))


def test_bfloat16_of_old():
    params, _ = migrate.load_haiku(OLD / "bfloat16.pkl")
    cast = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), expected()[0])
    assert_same(params, cast)
    floats, _ = migrate.load_haiku(OLD / "bfloat16.pkl", dtype="float32")
    assert_same(floats, jax.tree.map(lambda leaf: leaf.astype("f4"), cast))


def test_pickle_itself_reads_the_same_or_dies():
    """JAX 0.10 dies of what JAX 0.4 wrote; 0.12 reads it again."""
    raw = (OLD / "params.pkl").read_bytes()
    try:
        theirs = pickle.loads(raw)
    except TypeError as error:
        assert "named_shape" in repr(error)  # noqa: PT017
    else:
        ours, _ = migrate.load_haiku(OLD / "params.pkl")
        assert_same(ours, jax.tree.map(np.asarray, theirs))


def test_weights_of_old_run():
    params, state = migrate.load_haiku(OLD / "pair_4.pkl")

    def network(x):
        x = hk.nets.MLP([3, 2], name="mlp")(x)
        return hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training=True)

    f = hk.transform_with_state(network)
    y, _ = f.apply(params, state, None, jnp.ones([2, 4]))
    assert y.shape == (2, 2)


# Written today, by the libraries themselves.


def test_pickles_of_today(tmp_path):
    params = jax.tree.map(jnp.asarray, PARAMS)
    tree = {
        "a": {"w": jnp.ones([2], jnp.bfloat16), "f": np.asfortranarray(PARAMS and X)},
        "b": {
            "s": np.float64(3),
            "big": np.ones(2, ">f4"),
            "none": np.zeros((0, 3), ">f4"),
        },
        "c": {"i4": jnp.ones(3, jnp.int4), "f8": jnp.ones(2, jnp.float8_e4m3fn)},
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path = tmp_path / "a.pkl"
        path.write_bytes(pickle.dumps((params, tree), protocol))
        ours, other = migrate.load_haiku(path)
        assert_same(ours, jax.tree.map(np.asarray, params))
        native = lambda leaf: np.asarray(leaf).astype(
            np.asarray(leaf).dtype.newbyteorder("=")
        )
        assert_same(other, jax.tree.map(native, tree))


X = np.arange(6.0).reshape(2, 3)


def native(leaf):
    """A NumPy array in the byte order of the machine."""
    array = np.asarray(leaf)
    return array.astype(array.dtype.newbyteorder("="))


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 1), ("xz", 1)])
def test_joblib_of_today(compress, tmp_path):
    path = tmp_path / "a.joblib"
    tree = {"a": {"w": X, "f": np.asfortranarray(X), "same": X}, "b": {"e": X[:0]}}
    joblib.dump(tree, path, compress=compress)
    assert_same(migrate.load_haiku(path), (tree, {}))


def test_a_pickle_in_gzip(tmp_path):
    path = tmp_path / "a.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(PARAMS)))
    assert_same(migrate.load_haiku(path), (PARAMS, {}))


MAPPINGS = {
    "FlatMapping": hk.data_structures.to_immutable_dict,
    "OrderedDict": lambda tree: collections.OrderedDict(reversed(tree.items())),
    "defaultdict": lambda tree: collections.defaultdict(dict, tree),
    "FrozenDict": flax.core.FrozenDict,
}


@pytest.mark.parametrize("make", MAPPINGS.values(), ids=MAPPINGS)
def test_mappings_in_pickles(make, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(make(PARAMS)))
    assert_same(migrate.load_haiku(path), (PARAMS, {}))


def test_the_recipe_with_an_ordered_dict(tmp_path):
    """JAX flattens one in its own order, a dict in that of the names."""
    tree = collections.OrderedDict(b={"w": X}, a={"w": X + 1})
    with (tmp_path / "arrays.npy").open("wb") as file:
        for leaf in jax.tree.leaves(tree):
            np.save(file, leaf, allow_pickle=False)
    zeros = jax.tree.map(lambda leaf: 0, tree)
    (tmp_path / "tree.pkl").write_bytes(pickle.dumps(zeros))
    assert_same(migrate.load_haiku(tmp_path), ({"b": {"w": X}, "a": {"w": X + 1}}, {}))


@pytest.mark.parametrize("left", [1, 3])
def test_the_recipe_with_another_number_of_arrays(left, tmp_path):
    with (tmp_path / "arrays.npy").open("wb") as file:
        for _ in range(left):
            np.save(file, X)
    zeros = {"a": {"w": 0, "b": 0}}
    (tmp_path / "tree.pkl").write_bytes(pickle.dumps(zeros))
    refused(tmp_path, "arrays.npy")


def test_what_orbax_and_msgpack_hold(tmp_path):
    pairs = {
        "dict": {"params": PARAMS, "state": STATE},
        "tuple": (PARAMS, STATE),
        "list": [PARAMS, STATE],
        "with others": {"params": PARAMS, "state": STATE, "opt": [np.ones(2)]},
        "alone": PARAMS,
    }
    for name, tree in pairs.items():
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / name, tree)
        path = tmp_path / f"{name}.msgpack"
        path.write_bytes(flax.serialization.to_bytes(tree))
        for place in (tmp_path / name, path):
            state = {} if name == "alone" else STATE
            assert_same(migrate.load_haiku(place), (PARAMS, state))


SPELLINGS = {
    "alphafold": {"mlp/~/linear_0//w": X, "norm//scale": X},
    "plain": {"mlp/~/linear_0/w": X, "norm/scale": X},
    "dotted": {"mlp/~/linear_0.w": X, "norm.scale": X},
    "weathernext": {
        "params:mlp/~/linear_0:w": X,
        "params:norm:scale": X,
        "model_config:latent_size": np.array(512),
        "description": np.array("a model"),
        "license": np.array("CC"),
    },
}


@pytest.mark.parametrize("names", SPELLINGS)
def test_names_in_flat_files(names, tmp_path):
    """As AlphaFold's params_model_1.npz, disco_rl's disco_103.npz, SAbR's
    mpnn_encoder.npz and GraphCast's."""
    flat = SPELLINGS[names]
    np.savez(tmp_path / "a.npz", **flat)
    trees = ({"mlp/~/linear_0": {"w": X}, "norm": {"scale": X}}, {})
    assert_same(migrate.load_haiku(tmp_path / "a.npz"), trees)
    if names != "weathernext":  # safetensors has no text
        safetensors.numpy.save_file(flat, tmp_path / "a.safetensors")
        assert_same(migrate.load_haiku(tmp_path / "a.safetensors"), trees)
    migrate.save_haiku(tmp_path / "b.npz", *trees, names=names)
    with np.load(tmp_path / "b.npz") as archive:
        assert set(archive) == set(flat) - {
            "model_config:latent_size",
            "description",
            "license",
        }
    assert_same(migrate.load_haiku(tmp_path / "b.npz"), trees)


# There and back.

WRITTEN = [".npz", ".safetensors", ".msgpack", ""]
TREES = {
    "usual": (PARAMS, STATE),
    "no state": (PARAMS, {}),
    "nothing": ({}, {}),
    "no leaves": ({"a": {}, "b/~/c": {"w": X}}, {"a": {}}),
    "odd names": ({"a/~b/c": {"w.x": X}, "params": {"params": X}}, {"state": {"w": X}}),
    "dots": ({"a/~/b": {"w.x": X}}, {"a": {"m.y": X}}),
    "of FlaxModule": ({"net/Dense_0": {"a%2Fb": X}}, {"net/batch_stats/N": {"m": X}}),
}


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("trees", TREES.values(), ids=TREES)
def test_haikus_trees_survive(trees, suffix, tmp_path):
    path = tmp_path / f"net{suffix}"
    migrate.save_haiku(path, *trees)
    assert_same(migrate.load_haiku(path), trees)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", WRITTEN)
def test_what_a_transform_gives_is_saved(suffix, tmp_path):
    f = hk.transform_with_state(lambda x: hk.BatchNorm(True, True, 0.9)(x, True))
    params, state = f.init(jax.random.key(0), jnp.ones([2, 3]))
    frozen = hk.data_structures.to_immutable_dict(params)
    migrate.save_haiku(tmp_path / f"a{suffix}", frozen, state)
    back = migrate.load_haiku(tmp_path / f"a{suffix}")
    assert_same(back, jax.tree.map(np.asarray, (params, state)))
    hk.transform_with_state(lambda x: hk.BatchNorm(True, True, 0.9)(x, True)).apply(
        *back, None, jnp.ones([2, 3])
    )


@pytest.mark.parametrize(
    ("names", "params", "state", "where"),
    [
        ("alphafold", PARAMS, STATE, "'norm/~/mean_ema/average'"),
        ("plain", PARAMS, STATE, "'norm/~/mean_ema/average'"),
        ("plain", {"a": {"b/c": X}}, {}, "path 'a/b/c'"),
        ("plain", {"params": {"w": X}}, {}, "path 'params/w'"),
        ("alphafold", {"a//b": {"c//d": X}}, {}, "path 'a//b/c//d'"),
        ("plain", {"a": {"b.c": X}}, {}, "path 'a/b.c'"),
        ("dotted", {"a": {"b/c": X}}, {}, "path 'a/b/c'"),
        ("dotted", {"a": {"b.c": X}}, {}, "path 'a/b.c'"),
        ("dotted", PARAMS, STATE, "'norm/~/mean_ema/average'"),
        ("weathernext", {"a": {"b:c": X}}, {}, "path 'a/b:c'"),
        ("weathernext", {"a": {}}, {}, "path 'a'"),
    ],
)
def test_names_that_a_spelling_has_no_place_for(names, params, state, where, tmp_path):
    path = tmp_path / "a.npz"
    with pytest.raises(hk_bridge.VariablesError, match="has no place") as caught:
        migrate.save_haiku(path, params, state, names=names)
    assert where in str(caught.value)
    assert f"names={names!r}" in str(caught.value)
    assert not path.exists()


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="names= is one of .*, not 'numpy'"):
        migrate.save_haiku(tmp_path / "a.npz", PARAMS, names="numpy")
    with pytest.raises(migrate.CheckpointError, match="suffix of a pickle.*never writ"):
        migrate.save_haiku(tmp_path / "a.pkl", PARAMS)
    for wrong in ({"a": X}, {"a": {"b": {"c": X}}}, 3):
        with pytest.raises(
            hk_bridge.VariablesError, match="name: array}} was expected"
        ):
            migrate.save_haiku(tmp_path / "a.npz", wrong)
    with pytest.raises(hk_bridge.VariablesError, match="a builtins.str"):
        migrate.save_haiku(tmp_path / "a.npz", {"a": {"w": "text"}})
    assert os.listdir(tmp_path) == []


# What is none.


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".msgpack"])
def test_flaxs_own_are_refused(suffix, tmp_path):
    tree = {"params": {"Dense_0": {"inner": {"kernel": X}}}, "batch_stats": {"m": X}}
    migrate.save(tmp_path / f"a{suffix}", tree)
    refused(tmp_path / f"a{suffix}", "hk_bridge.migrate.load")


@pytest.mark.parametrize(
    "tree",
    [X, 3, None, "text", [], [X], {"a": X}, {"a": {"b": {}}}]
    + [({"a": X}, {"b": X}), [{"a": X}], {"0": {"a": X}, "1": {"b": X}}],
)
def test_what_is_no_tree_of_haikus(tree, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(tree))
    refused(path, str(path) if not isinstance(tree, dict) else "")


@pytest.mark.parametrize(
    "names",
    [["w"], ["a//b", "c/d"], ["params:w"], ["a/~/w"], ["a/~/b.w", "c"]]
    + [["/a/w"], ["/w"], ["a///w"], ["~a/w"], ["a//b/w", "c/d"]],
)
def test_flat_names_that_are_none_of_haikus(names, tmp_path):
    np.savez(tmp_path / "a.npz", **dict.fromkeys(names, X))
    refused(tmp_path / "a.npz", "is not of the form")


class Point(tuple):
    __slots__ = ()


class Thing:
    def __init__(self, x):
        self.x = x


RAN = []


class Evil:
    def __init__(self, call):
        self.call = call

    def __reduce__(self):
        return self.call


HOSTILE = {
    "os": (Evil((os.mkdir, ("evil",))), "posix.mkdir"),
    "eval": (Evil((eval, ("RAN.append(1)",))), "eval, which is no array"),
    "getattr": (Evil((getattr, (X, "tofile"))), "getattr, which is no array"),
    "a class of the user": (Thing(3), "test_haiku_files.Thing|copy_reg._reconstructor"),
    "a subclass of tuple": (Point((1, 2)), "it names "),
    "np.load": (Evil((np.load, ("a.npy",))), "numpy.load"),
    "a set": ({1, 2}, "set, which is no (leaf|array)"),
    "a numpy array of objects": (np.array([Thing(1)], object), "none of weights"),
    "records": (np.zeros(2, [("a", "f4")]), "no array|compound|dtype"),
    "a function": (np.sum, "numpy.sum"),
    "the joblib module": (Evil((joblib.load, ("a",))), "joblib.numpy_pickle.load"),
    "a name of a dict": ({(1, 2): X}, "a name of type tuple"),
}


@pytest.mark.parametrize("case", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_what_is_no_array_is_refused_by_its_name(case, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    value, told = case
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"m": {"w": value}}, protocol))
    with pytest.raises(migrate.CheckpointError, match=told):
        migrate.load_haiku(path)
    assert os.listdir(tmp_path) == ["a.pkl"]
    assert not RAN


RAW = {
    "an index of the memo that is huge": b"\x80\x02]r\xff\xff\xff\x7f.",
    "bytes that are not there": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"1234.",
    "a frame that is not there": b"\x80\x04\x95" + struct.pack("<Q", 2**50) + b"N.",
    "a bytearray that is not there": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "a long that is not there": b"\x80\x02\x8b\xff\xff\xff\x7f1.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent name": b"Pmine\n.",
    "a buffer beside it": b"\x80\x05\x97.",
    "nothing": b"",
    "no end": b"\x80\x02]",
    "itself": b"\x80\x02}q\x00h\x00U\x01ah\x00s.",
    "a list in a list": b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "something after it": pickle.dumps({}) + b"x",
    "attributes of a name": b"\x80\x02cnumpy\ndtype\n}b.",
    "a call of a text": b"\x80\x02cml_dtypes\nbfloat16\n)R.",
    "twice twice twice": b"\x80\x02]q\x00"
    + b"".join(
        b"]q" + bytes([i]) + b"(h" + bytes([i - 1]) + b"h" + bytes([i - 1]) + b"e"
        for i in range(1, 60)
    )
    + b".",
    "a new object of a function": b"\x80\x02cbuiltins\ndict\n)\x81.",
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_a_pickle_that_does_harm_is_refused(raw, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(raw)
    refused(path, str(path))


def array(shape=(2,), dtype="f4", raw=b"\0" * 8, fortran=False, state=None):
    """An array as NumPy pickles it, with what is given in its place."""
    made = np.zeros(2, "f4").__reduce__()
    state = (1, shape, np.dtype(dtype), fortran, raw) if state is None else state
    return Evil((made[0], made[1], state))


ARRAYS = {
    "too few bytes": array(raw=b"\0" * 7),
    "too many bytes": array(raw=b"\0" * 9),
    "a negative size": array(shape=(-1,)),
    "two negative sizes": array(shape=(-1, -2)),
    "a size that is none": array(shape=(True, 2)),
    "a huge size": array(shape=(2**62, 2)),
    "no state": array(state=()),
    "text": array(dtype="S4"),
    "a list of objects": array(dtype="O", raw=[1, 2]),
}


@pytest.mark.parametrize("value", ARRAYS.values(), ids=ARRAYS)
def test_an_array_that_does_not_fit_its_bytes_is_refused(value, tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"m": {"w": value}}, 2))
    refused(path, str(path))


def test_a_refused_pickle_tells_what_to_do(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"params": PARAMS, "opt": Thing(1)}))
    refused(path, "no code is run. Load it with the code that wrote it")


def test_lz4_is_told(tmp_path):
    (tmp_path / "a.joblib").write_bytes(b"\x04\x22\x4d\x18rest")
    refused(tmp_path / "a.joblib", "compressed by lz4")


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(migrate._format, "_BOMB", 1000)
    joblib.dump({"a": {"w": np.zeros(10**6)}}, tmp_path / "a.joblib", compress=True)
    refused(tmp_path / "a.joblib", "not whole")
    path = tmp_path / "a.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(np.zeros(10**6))))
    refused(path, "would unpack to more than")


def test_nothing_that_is_known_is_a_function_of_others():
    """What a pickle may call is of this package, a text, or a class of dicts."""
    for name, stands_for in KNOWN.items():
        own = getattr(stands_for, "__module__", "").startswith("hk_bridge.")
        plain = isinstance(stands_for, str) or stands_for is collections.OrderedDict
        assert own or plain, name


def test_load_reads_pickles_of_flax(tmp_path):
    path = tmp_path / "a.pkl"
    tree = {"params": {"Dense_0": {"kernel": jnp.ones([2, 3])}}}
    path.write_bytes(pickle.dumps(flax.core.freeze(tree)))
    assert_same(migrate.load(path), jax.tree.map(np.asarray, tree))


# Any names: there and back, or refused.

TEXT = st.one_of(st.text("ab/.:~%_0", max_size=4), st.text(max_size=3))
BUNDLES = st.dictionaries(
    TEXT, st.dictionaries(TEXT, st.just(X), max_size=2), max_size=3
)
SPELLED = ["hk_bridge", "plain", "dotted", "alphafold", "weathernext"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".msgpack"])
@given(params=BUNDLES, state=BUNDLES)
@settings(max_examples=60, deadline=None)
@example(params={"params": {}, "state": {}}, state={})
@example(params={"params": {"params": X}}, state={"params": {"state": X}})
@example(params={"0": {"a": X}}, state={"1": {"b": X}})
@example(params={}, state={"a": {}})
def test_any_names_survive(params, state, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / f"a{suffix}"
        try:
            migrate.save_haiku(path, params, state)
        except hk_bridge.VariablesError:
            assert not path.exists()
        else:
            assert_same(migrate.load_haiku(path), (params, state))


@pytest.mark.parametrize("names", SPELLED)
@given(params=BUNDLES, state=st.one_of(st.just({}), BUNDLES))
@settings(max_examples=100, deadline=None)
def test_any_names_survive_in_each_spelling_or_are_refused(params, state, names):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.npz"
        try:
            migrate.save_haiku(path, params, state, names=names)
        except hk_bridge.VariablesError:
            assert not path.exists()
        else:
            assert_same(migrate.load_haiku(path), (params, state))


@pytest.mark.parametrize("suffix", [".msgpack", ".npz", ""])
@pytest.mark.parametrize("inner", [{"Dense_0": {"kernel": X}}, {"kernel": X}])
def test_flaxs_collections_are_not_lost(suffix, inner, tmp_path):
    """Two levels, as Haiku's own trees have."""
    tree = {"params": inner, "batch_stats": {"BatchNorm_0": {"mean": X}}}
    migrate.save(tmp_path / f"a{suffix}", tree)
    refused(tmp_path / f"a{suffix}", "hk_bridge.migrate.load")


@pytest.mark.parametrize("names", ["plain", "alphafold", "dotted", "weathernext"])
def test_parameters_of_no_module(names, tmp_path):
    """`hk.get_parameter` outside of modules, which Haiku files under `~`."""

    def net(x):
        return hk.Linear(3)(x) * hk.get_parameter("scale", [2, 1], init=jnp.ones)

    params = hk.transform(net).init(jax.random.key(0), jnp.ones([2, 4]))
    params = jax.tree.map(np.asarray, params)
    assert set(params) == {"linear", "~"}
    migrate.save_haiku(tmp_path / "a.npz", params, names=names)
    assert_same(migrate.load_haiku(tmp_path / "a.npz"), (params, {}))


@pytest.mark.parametrize("dtype", ["bfloat16", ">f4", "<c16", "?"])
def test_dtypes_in_the_recipe(dtype, tmp_path):
    leaf = np.ones([2, 3], jnp.dtype(dtype))
    with (tmp_path / "arrays.npy").open("wb") as file:
        np.save(file, np.asfortranarray(leaf), allow_pickle=False)
    (tmp_path / "tree.pkl").write_bytes(pickle.dumps({"linear": {"w": 0}}))
    (params, _) = migrate.load_haiku(tmp_path)
    assert params["linear"]["w"].dtype == leaf.dtype.newbyteorder("=")
    np.testing.assert_array_equal(params["linear"]["w"], leaf)


@pytest.mark.parametrize("name", ["m.safetensors.index.json", "m.msgpack.index.json"])
def test_parts_are_flaxs_alone(name, tmp_path):
    with pytest.raises(migrate.CheckpointError, match="parts of Flax's checkpoints al"):
        migrate.save_haiku(tmp_path / name, {"a": {"w": X}}, {"b": {"c": X}})
    assert not list(tmp_path.iterdir())
    migrate.save(tmp_path / name, {"params": {"a": {"w": X}}})
    refused(tmp_path / name, "those of Flax variables")


@pytest.mark.parametrize("names", [["a.b", "a.c"], ["params.a"], ["a/b.c", "a/d.e"]])
def test_a_file_that_says_it_is_flaxs(names, tmp_path):
    path = tmp_path / "model.safetensors"
    flat = dict.fromkeys(names, X)
    safetensors.numpy.save_file(flat, path, metadata={"format": "flax"})
    refused(path, "those of Flax variables")


@pytest.mark.parametrize("suffix", [".npz", ".msgpack", ""])
@pytest.mark.parametrize("names", ["nope", None, 3, ["plain"]])
def test_a_spelling_that_is_none_is_refused_in_each_format(suffix, names, tmp_path):
    with pytest.raises(ValueError, match="names= is one of"):
        migrate.save_haiku(tmp_path / f"a{suffix}", {"a": {"w": X}}, names=names)
