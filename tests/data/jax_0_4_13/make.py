"""Makes the files beside it, as Haiku code bases saved them years ago.

    python3.9 -m venv old
    old/bin/pip install jax==0.4.13 jaxlib==0.4.13 dm-haiku==0.0.10 flax==0.7.4 \
        'numpy<1.27' 'scipy<1.12' joblib==1.5.3 dm-tree optax==0.1.7
    cd tests/data/jax_0_4_13 && ../../../old/bin/python make.py

JAX 0.3 had `jax._src.device_array.reconstruct_device_array` in the place of
`jax._src.array._reconstruct_array`, with the same arguments (jax 0.3.25,
jax/_src/device_array.py:294); its wheels are gone from PyPI, so that one name is put
into the file that JAX 0.4 makes. The savers of Acme are those of acme 0.4.0.
"""

import pathlib
import pickle

import flax
from flax.training import checkpoints
from flax.training import train_state
import haiku as hk
import jax
import jax.numpy as jnp
import joblib
import numpy as np
import optax
import tree

HERE = pathlib.Path(__file__).resolve().parent


def network(x):
    x = hk.nets.MLP([3, 2], name="mlp")(x)
    return hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training=True)


def dump(name, value, protocol=None):
    (HERE / name).write_bytes(pickle.dumps(value, protocol))


def acme(folder, state):
    """acme.jax.savers.save_to_path."""
    folder.mkdir(exist_ok=True)
    is_numpy = lambda x: isinstance(x, (np.ndarray, jnp.ndarray))
    flat_state = tree.flatten(state)
    nest_exemplar = tree.map_structure(is_numpy, state)

    def _disabled_seek(*_):
        raise AttributeError("seek() is disabled on this object.")

    with open(folder / "array_nest", "wb") as f:
        f.seek = _disabled_seek
        np.savez(f, *flat_state)
    with open(folder / "nest_exemplar", "wb") as f:
        pickle.dump(nest_exemplar, f)


def recipe(folder, state):
    """github.com/google-deepmind/dm-haiku/issues/18."""
    folder.mkdir(exist_ok=True)
    with open(folder / "arrays.npy", "wb") as f:
        for x in jax.tree_util.tree_leaves(state):
            np.save(f, x, allow_pickle=False)
    tree_struct = jax.tree_util.tree_map(lambda t: 0, state)
    with open(folder / "tree.pkl", "wb") as f:
        pickle.dump(tree_struct, f)


def main():
    f = hk.transform_with_state(network)
    params, state = f.init(jax.random.PRNGKey(0), jnp.ones([2, 4]))
    frozen = hk.data_structures.to_immutable_dict(params)
    # What all of the files hold, without any code: the expected values.
    flat = {
        f"{which}:{module}:{name}": np.asarray(leaf)
        for which, part in (("params", params), ("state", state))
        for module, bundle in part.items()
        for name, leaf in bundle.items()
    }
    np.savez(HERE / "expected.npz", **flat)
    for protocol in (2, 3, 4, 5):
        dump(f"pair_{protocol}.pkl", (params, state), protocol)
    dump("params.pkl", params)
    dump("flat_mapping.pkl", frozen)
    dump("numpy.pkl", jax.tree_util.tree_map(np.asarray, params))
    dump(
        "bfloat16.pkl", jax.tree_util.tree_map(lambda x: x.astype(jnp.bfloat16), params)
    )
    opt_state = {"mu": params, "count": 3}
    everything = {"params": params, "state": state, "opt_state": opt_state, "step": 7}
    dump("everything.pickle", everything)
    old = pickle.dumps(params, 2)
    new = b"cjax._src.array\n_reconstruct_array\n"
    assert new in old
    old = old.replace(new, b"cjax._src.device_array\nreconstruct_device_array\n")
    (HERE / "jax_0_3.pkl").write_bytes(old)
    with open(HERE / "two_dumps.pkl", "wb") as file:
        pickle.dump(params, file)
        pickle.dump(state, file)
    arrays = jax.tree_util.tree_map(np.asarray, (params, state))
    joblib.dump(arrays, HERE / "numpy.joblib")
    joblib.dump((params, state), HERE / "jax.joblib")
    for name in ("zlib", "gzip", "bz2", "xz", "lzma"):
        joblib.dump(arrays, HERE / f"{name}.joblib", compress=(name, 3))
    recipe(HERE / "recipe", {"params": params, "state": state})
    acme(HERE / "acme", {"params": params, "state": state})
    holder = train_state.TrainState.create(
        apply_fn=None, params=flax.core.freeze({"w": jnp.ones(2)}), tx=optax.adam(0.1)
    )
    flax.config.update("flax_use_orbax_checkpointing", False)
    for step in (9, 100):
        checkpoints.save_checkpoint(
            HERE / "legacy", holder.replace(step=step), step, keep=2, overwrite=True
        )
    (HERE / "none.msgpack").write_bytes(
        flax.serialization.to_bytes({"params": {"w": jnp.ones(2), "bias": None}})
    )
    bare = {"layer": {"kernel": jnp.ones([2, 3], jnp.bfloat16)}, "cls": jnp.zeros(3)}
    (HERE / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(bare))


if __name__ == "__main__":
    main()
