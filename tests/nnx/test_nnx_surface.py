"""NNX's public surface: no layer and no transform lacks a case."""

import pathlib
import re

import catalogue_nnx
import catalogue_nnx_lifted
import catalogue_nnx_models
from flax import nnx
import haiku as hk
import jax
import pytest

import hk_bridge
from hk_bridge.testing import assert_identical

CATALOGUES = (catalogue_nnx, catalogue_nnx_lifted, catalogue_nnx_models)
CASES = [case for catalogue in CATALOGUES for case in catalogue.CASES]
# They write the parameters of the layer inside, which test_nnx_norms.py is about.
WRITERS = {"WeightNorm", "SpectralNorm"}
# `test_a_newer_layer` is about it.
NEWER = {"RoPE"}
# What runs nothing, or cannot run in the call of a module: one device a process.
OTHERS = {
    "StateSharding",
    "eval_shape",
    "jit_partial",
    "make_jaxpr",
    "pmap",
    "transform_metadata",
}


@pytest.mark.weekly  # it builds them all
def test_every_layer_is_in_a_case():
    held = {
        cls.__name__
        for case in CASES
        for _, module in nnx.iter_modules(case.make())
        for cls in type(module).__mro__
    }
    layers = {
        name
        for name, value in vars(nnx).items()
        if isinstance(value, type) and issubclass(value, nnx.Module)
    }
    assert layers - held <= WRITERS | NEWER
    assert layers - held >= WRITERS
    assert "ToNNX" in held


@pytest.mark.skipif(not hasattr(nnx, "RoPE"), reason="it came after flax 0.12.8")
@pytest.mark.filterwarnings("ignore:'.value' access is now deprecated")  # its own
def test_a_newer_layer():
    module = nnx.RoPE(embedding_size=8, max_seq_len=5)
    x = jax.random.normal(jax.random.key(0), (2, 5, 2, 8))
    f = hk.transform_with_state(lambda x: hk_bridge.FlaxModule(module)(x))
    params, state = f.init(None, x)
    y, state = jax.jit(f.apply)(params, state, None, x)
    assert_identical(y, jax.jit(module)(x))
    assert not params


def test_every_transform_is_in_a_case():
    transforms = {
        name
        for name, value in vars(nnx).items()
        if getattr(value, "__module__", "").startswith("flax.nnx.transforms")
    }
    sources = [pathlib.Path(c.__file__).read_text() for c in CATALOGUES]
    used = set(re.findall(r"\bnnx\.(\w+)", "".join(sources)))
    assert {"vmap", "scan", "jit", "remat", "cond"} <= transforms
    assert transforms - used <= OTHERS


def test_there_are_many():
    assert len(CASES) >= 40
