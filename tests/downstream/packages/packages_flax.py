"""Flax networks of published packages, small and with random weights."""

import jax
import jax.numpy as jnp
from packages_case import Catalogue
from packages_case import Linen
from packages_case import floats
from packages_case import ints
from packages_case import ring

CASES = Catalogue()


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


@CASES.of("evosax", "CNN")
def _() -> Linen:
    from evosax.problems import networks

    net = networks.CNN(
        (4,), ((3, 3),), ((1, 1),), (8, 3), output_fn=networks.identity_output_fn
    )
    return Linen(net, (floats(2, 6, 6, 1),))


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


@CASES.of("flaxmodels", "VGG16")
def _() -> Linen:
    import flaxmodels

    net = flaxmodels.VGG16(
        output="logits", pretrained=None, include_head=False, num_classes=5
    )
    return Linen(net, (jax.nn.sigmoid(floats(1, 32, 32, 3)),))


@CASES.of("long-range-models", "LRU language model")
def _() -> Linen:
    import long_range_models as models

    layer = models.LRULayer(dim=8, hidden_dim=8)
    return Linen(models.SequenceModel(layer, num_tokens=11), (ints(2, 6, below=11),))


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
