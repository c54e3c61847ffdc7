"""Flax networks of published packages, small and with random weights."""

from typing import Any

import jax
import jax.numpy as jnp
from packages_case import Catalogue
from packages_case import Linen
from packages_case import floats
from packages_case import ints
from packages_case import ring

CASES = Catalogue()


def spins() -> jax.Array:
    """Two configurations of four spins."""
    return jnp.array([[1.0, -1.0, 1.0, 1.0], [-1.0, -1.0, 1.0, -1.0]])


@CASES.of("brax", "policy MLP with LayerNorm")
def _() -> Linen:
    from brax.training import networks

    return Linen(networks.MLP((8, 3), layer_norm=True), (floats(2, 4),))


@CASES.of("brax", "MLP with spectral norm")
def _() -> Linen:
    from brax.training import networks

    return Linen(networks.SNMLP((8, 3)), (floats(2, 4),))


@CASES.of("brax", "CNN")
def _() -> Linen:
    from brax.training import networks

    net = networks.CNN((4, 4), ((3, 3), (3, 3)), ((1, 1), (2, 2)), max_pool=True)
    return Linen(net, (floats(2, 8, 8, 3),))


@CASES.of("diffusers", "FlaxUNet2DConditionModel")
def _() -> Linen:
    import diffusers

    net = diffusers.FlaxUNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 32),
        layers_per_block=1,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
    )
    args = (floats(1, 4, 8, 8), jnp.array([3]), floats(1, 5, 16))
    return Linen(net, args, {"train": True})


@CASES.of("diffusers", "FlaxAutoencoderKL")
def _() -> Linen:
    import diffusers

    net = diffusers.FlaxAutoencoderKL(
        block_out_channels=(32,), norm_num_groups=8, sample_size=8
    )
    return Linen(net, (floats(1, 3, 8, 8),), {"deterministic": True})


@CASES.of("e3nn-jax", "message passing (Flax)")
def _() -> Linen:
    import e3nn_jax
    from e3nn_jax.experimental import point_convolution

    net = point_convolution.MessagePassingConvolutionFlax(
        e3nn_jax.Irreps("4x0e + 1o"),
        radial_basis=lambda r: e3nn_jax.bessel(r, 8, 2.0),
        avg_num_neighbors=2.0,
        sh_lmax=1,
    )
    senders, receivers = ring(4)
    positions = e3nn_jax.IrrepsArray("1o", floats(4, 3))
    nodes = e3nn_jax.IrrepsArray("2x0e + 1o", floats(4, 5, seed=1))
    edges = positions[receivers] - positions[senders]
    return Linen(net, (edges, nodes, senders, receivers))


@CASES.of("e3x", "message passing")
def _() -> Linen:
    import e3x
    import flax.linen as nn

    class Net(nn.Module):
        """Of layers of e3x, as its tutorials put them together."""

        @nn.compact
        def __call__(self, atoms: Any, edges: Any, senders: Any, receivers: Any) -> Any:
            basis = e3x.nn.basis(
                edges, max_degree=1, num=4, radial_fn=e3x.nn.reciprocal_bernstein
            )
            where = {"dst_idx": receivers, "src_idx": senders, "num_segments": 4}
            x = e3x.nn.Embed(5, 6)(atoms)
            x = e3x.nn.MessagePass(max_degree=1)(x, basis, **where)
            x = e3x.nn.silu(e3x.nn.Dense(6)(x))
            return e3x.nn.TensorDense(3, max_degree=0)(x)

    senders, receivers = ring(4)
    positions = floats(4, 3)
    edges = positions[receivers] - positions[senders]
    return Linen(Net(), (jnp.arange(4), edges, senders, receivers))


@CASES.of("evosax", "CNN")
def _() -> Linen:
    from evosax.problems import networks

    net = networks.CNN(
        (4,), ((3, 3),), ((1, 1),), (8, 3), output_fn=networks.identity_output_fn
    )
    return Linen(net, (floats(2, 6, 6, 1),))


@CASES.of("evosax", "EvoTransformer")
def _() -> Linen:
    from evosax.algorithms.distribution_based import evotf_es

    net = evotf_es.EvoTransformer(
        embed_dim=8, num_heads=2, num_latents=3, latent_dim=4, dropout_prob=0.1
    )
    batch, steps, population, dims = 2, 3, 4, 2
    args = (
        floats(batch, steps, population, dims, 5),
        floats(batch, steps, population, 3),
        floats(batch, steps, dims, 4),
    )
    return Linen(net, args, {"train": True})


@CASES.of("flaxdiff", "UNet")
def _() -> Linen:
    from flaxdiff.models import simple_unet

    net = simple_unet.Unet(
        emb_features=16,
        feature_depths=(8, 16),
        attention_configs=(None, {"heads": 2}),
        num_res_blocks=1,
        num_middle_res_blocks=1,
        norm_groups=4,
    )
    return Linen(net, (floats(1, 8, 8, 3), jnp.array([0.3]), floats(1, 5, 16)))


@CASES.of("flaxmodels", "ResNet18")
def _() -> Linen:
    import flaxmodels

    net = flaxmodels.ResNet18(output="logits", pretrained=None, num_classes=5)
    return Linen(net, (jax.nn.sigmoid(floats(2, 32, 32, 3)),))


@CASES.of("long-range-models", "LRU language model")
def _() -> Linen:
    import long_range_models as models

    layer = models.LRULayer(feature_dim=8, state_dim=8)
    net = models.SequenceModel(layer, num_tokens=11, emb_dim=8)
    return Linen(net, (ints(2, 6, below=11),))


@CASES.of("netket", "autoregressive, dense")
def _() -> Linen:
    import netket as nk

    net = nk.models.ARNNDense(
        hilbert=nk.hilbert.Spin(0.5, 4),
        layers=2,
        features=3,
        param_dtype=jnp.float32,
    )
    return Linen(net, (spins(),))


@CASES.of("netket", "autoregressive, masked convolutions")
def _() -> Linen:
    import netket as nk

    net = nk.models.FastARNNConv1D(
        hilbert=nk.hilbert.Spin(0.5, 4),
        layers=2,
        features=3,
        kernel_size=2,
        param_dtype=jnp.float32,
    )
    return Linen(net, (spins(),))


@CASES.of("netket", "group convolution")
def _() -> Linen:
    import netket as nk

    net = nk.models.GCNN(
        symmetries=nk.graph.Chain(4).translation_group(),
        layers=2,
        features=2,
        mode="irreps",
        param_dtype=jnp.float32,
    )
    return Linen(net, (spins(),))


@CASES.of("netket", "complex RBM")
def _() -> Linen:
    import netket as nk

    return Linen(nk.models.RBM(alpha=2, param_dtype=jnp.complex64), (spins(),))


@CASES.of("ott-jax", "ICNN")
def _() -> Linen:
    from ott.neural.networks import icnn

    return Linen(icnn.ICNN(dim_data=3, dim_hidden=[8, 8]), (floats(5, 3),))


@CASES.of("ott-jax", "potential MLP")
def _() -> Linen:
    from ott.neural.networks import potentials

    return Linen(potentials.PotentialMLP([8, 8]), (floats(5, 3),))


@CASES.of("ott-jax", "velocity field (NNX, by its to_linen)")
def _() -> Linen:
    from flax import nnx
    from ott.neural.networks.velocity_field import mlp

    net = nnx.bridge.to_linen(mlp.MLP, dim=3, hidden_dims=[8], cond_dim=2)
    return Linen(net, (floats(4), floats(4, 3), floats(4, 2)))


@CASES.of("recurrentgemma", "Griffin")
def _() -> Linen:
    from recurrentgemma import common
    from recurrentgemma import jax as recurrentgemma

    config = common.GriffinConfig(
        vocab_size=17,
        width=16,
        mlp_expanded_width=32,
        num_heads=2,
        block_types=(
            common.TemporalBlockType.RECURRENT,
            common.TemporalBlockType.ATTENTION,
        ),
        embeddings_scale_by_sqrt_dim=True,
        attention_window_size=8,
        logits_soft_cap=30.0,
        scan_type=common.ScanType.LINEAR_NATIVE,
    )
    tokens = ints(2, 6, below=17)
    positions = jnp.broadcast_to(jnp.arange(6), (2, 6))
    return Linen(recurrentgemma.Griffin(config), (tokens, positions))
