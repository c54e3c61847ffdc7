"""Makes the files beside it, by transformers, big_vision's saver and an older nnx.

    python3.11 -m venv old
    old/bin/pip install jax==0.4.35 jaxlib==0.4.35 flax==0.10.2 dm-haiku==0.0.13 \
        orbax-checkpoint==0.10.2 'numpy<2.2' transformers==4.46.0 safetensors
    cd tests/data/flax_0_10_2 && ../../../old/bin/python make.py
"""

import pathlib
import shutil

from flax import nnx
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy
from transformers import BertConfig
from transformers import FlaxBertModel

HERE = pathlib.Path(__file__).resolve().parent


def hugging_face():
    """save_pretrained, in one file, in parts, and as safetensors."""
    config = BertConfig(
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=4,
        vocab_size=8,
        max_position_embeddings=4,
    )
    model = FlaxBertModel(config, seed=0)
    model.save_pretrained(HERE / "one")
    model.save_pretrained(HERE / "parts", max_shard_size=600)
    model.save_pretrained(HERE / "safe", safe_serialization=True)
    flat = flax.traverse_util.flatten_dict(model.params, sep="/")
    np.savez(HERE / "expected.npz", **{k: np.asarray(v) for k, v in flat.items()})


def big_vision():
    """big_vision.utils.save_checkpoint of a checkpoint {"params", "opt"}."""
    tree = {
        "params": {"img": {"head": {"kernel": jnp.ones([2, 3], jnp.bfloat16)}}},
        "opt": {"0": {"mu": jnp.zeros([2, 3])}},
    }
    flat = flax.traverse_util.flatten_dict(jax.device_get(tree), sep="/")
    np.savez(HERE / "big_vision.npz", **flat)


def older_nnx():
    """A State as Orbax wrote it when a Variable had the level `value` on disk."""
    model = nnx.Sequential(
        nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0))
    )
    place = HERE / "nnx"
    shutil.rmtree(place, ignore_errors=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(place, nnx.state(model))


if __name__ == "__main__":
    hugging_face()
    big_vision()
    older_nnx()
    print(safetensors.__version__)
