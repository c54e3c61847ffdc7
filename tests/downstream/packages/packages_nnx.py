"""NNX models of published packages, small and with random weights."""

import jax.numpy as jnp
from packages_case import Catalogue
from packages_case import Nnx
from packages_case import floats
from packages_case import ints
from packages_case import ring

CASES = Catalogue()
GRAPH = (floats(6, 4), jnp.stack(ring(6)))
SIZES = {"hidden_features": 8, "num_layers": 2, "out_features": 3}


@CASES.of("jaxkit", "residual blocks with BatchNorm and dropout")
def _() -> Nnx:
    from flax import nnx
    from jaxkit import fully_connected

    net = fully_connected.FullyConnected([4, 8, 6, 5, 3], rngs=nnx.Rngs(0))
    return Nnx(net, (floats(2, 4),))


@CASES.of("jraphx", "GCN with BatchNorm and dropout")
def _() -> Nnx:
    from flax import nnx
    from jraphx.nn import models

    options = {"norm": "batch_norm", "dropout_rate": 0.5}
    return Nnx(models.GCN(4, **SIZES, **options, rngs=nnx.Rngs(0)), GRAPH)


@CASES.of("jraphx", "GCN with its normalisation cached")
def _() -> Nnx:
    from flax import nnx
    from jraphx.nn import models

    net = models.GCN(4, **SIZES, cached=True, rngs=nnx.Rngs(0))
    net.precompute_norm(GRAPH[1], num_nodes=6)
    return Nnx(net, GRAPH)


@CASES.of("jraphx", "GAT, attention with dropout")
def _() -> Nnx:
    from flax import nnx
    from jraphx.nn import models

    net = models.GAT(4, **SIZES, heads=2, dropout_rate=0.5, rngs=nnx.Rngs(0))
    return Nnx(net, GRAPH)


@CASES.of("jraphx", "GATv2 with LayerNorm and residuals")
def _() -> Nnx:
    from flax import nnx
    from jraphx.nn import models

    options = {"v2": True, "norm": "layer_norm", "residual": True}
    return Nnx(models.GAT(4, **SIZES, **options, rngs=nnx.Rngs(0)), GRAPH)


@CASES.of("jraphx", "GraphSAGE, layers joined by an LSTM")
def _() -> Nnx:
    from flax import nnx
    from jraphx.nn import models

    net = models.GraphSAGE(4, **SIZES, jk="lstm", rngs=nnx.Rngs(0))
    return Nnx(net, GRAPH)


@CASES.of("jraphx", "GIN, which trains its epsilon")
def _() -> Nnx:
    from flax import nnx
    from jraphx.nn import models

    net = models.GIN(4, **SIZES, train_eps=True, norm="graph_norm", rngs=nnx.Rngs(0))
    return Nnx(net, GRAPH)


@CASES.of("mamba2-jax", "language model")
def _() -> Nnx:
    from flax import nnx
    import mamba2_jax

    return Nnx(mamba2_jax.Mamba2ForCausalLM(mamba(), rngs=nnx.Rngs(0)), (TOKENS,))


@CASES.of("mamba2-jax", "language model, a step with a cache and labels")
def _() -> Nnx:
    from flax import nnx
    import mamba2_jax

    config = mamba()
    cache = mamba2_jax.create_empty_cache(config, batch_size=2)
    net = mamba2_jax.Mamba2ForCausalLM(config, rngs=nnx.Rngs(0))
    return Nnx(net, (TOKENS,), {"labels": TOKENS, "cache": cache})


@CASES.of("mamba2-jax", "forecaster")
def _() -> Nnx:
    from flax import nnx
    import mamba2_jax

    net = mamba2_jax.Mamba2Forecaster(
        input_dim=3, d_model=32, n_layers=2, forecast_horizon=4, rngs=nnx.Rngs(0)
    )
    return Nnx(net, (floats(2, 8, 3),))


@CASES.of("vitax", "vision transformer, sharded")
def _() -> Nnx:
    from flax import nnx
    import vitax

    sizes = {"num_layers": 2, "num_heads": 2, "mlp_dim": 16, "hidden_size": 8}
    with nnx.use_eager_sharding(False):
        net = vitax.VisionTransformer(
            num_classes=5, img_size=8, patch_size=4, **sizes, rngs=nnx.Rngs(0)
        )
    return Nnx(net, (floats(2, 8, 8, 3),))


TOKENS = ints(2, 8, below=17)


def mamba() -> "mamba2_jax.Mamba2Config":  # noqa: F821  is imported where it is used
    import mamba2_jax

    return mamba2_jax.Mamba2Config(
        vocab_size=17,
        hidden_size=16,
        state_size=4,
        head_dim=8,
        chunk_size=4,
        num_hidden_layers=2,
    )
