"""Haiku networks of published packages, small and with random weights."""

from collections.abc import Callable
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
from packages_case import Catalogue
from packages_case import Haiku
from packages_case import floats
from packages_case import ring

CASES = Catalogue()


def of(function: Callable[..., Any], *args: Any) -> Haiku:
    """A network that its package leaves to be transformed."""
    return Haiku(hk.transform_with_state(function), args)


def of_pure(init: Any, apply: Any, *args: Any) -> Haiku:
    """A network that its package has transformed, without state and keys."""
    return Haiku(
        hk.TransformedWithState(
            lambda key, *args: (init(key, *args), {}),
            lambda params, state, key, *args: (apply(params, *args), {}),
        ),
        args,
    )


@CASES.of("dm-haiku", "ResNet18")
def _() -> Haiku:
    net = lambda x: hk.nets.ResNet18(5)(x, is_training=True)
    return of(net, floats(2, 32, 32, 3))


@CASES.of("dm-haiku", "MobileNetV1")
def _() -> Haiku:
    net = lambda x: hk.nets.MobileNetV1(num_classes=5)(x, is_training=True)
    return of(net, floats(2, 32, 32, 3))


@CASES.of("dm-haiku", "multi-head attention")
def _() -> Haiku:
    init = hk.initializers.VarianceScaling()
    net = lambda x: hk.MultiHeadAttention(2, 4, w_init=init)(x, x, x)
    return of(net, floats(2, 5, 8))


@CASES.of("dm-haiku", "LSTM, unrolled")
def _() -> Haiku:
    def net(x: Any) -> Any:
        core = hk.LSTM(4)
        return hk.dynamic_unroll(core, x, core.initial_state(2))

    return of(net, floats(5, 2, 3))


@CASES.of("deepqmc", "MLP and gated linear unit")
def _() -> Haiku:
    from deepqmc import hkext

    def net(x: Any) -> Any:
        mlp = hkext.MLP(
            8,
            hidden_layers=("log", 2),
            bias="not_last",
            last_linear=True,
            activation=hkext.ssp,
            init="ferminet",
        )
        return hkext.GLU(3)(mlp(x), x)

    return of(net, floats(5, 4))


@CASES.of("e3nn-jax", "message passing (Haiku)")
def _() -> Haiku:
    import e3nn_jax
    from e3nn_jax.experimental import point_convolution

    def net(edges: Any, nodes: Any, senders: Any, receivers: Any) -> Any:
        return point_convolution.MessagePassingConvolutionHaiku(
            e3nn_jax.Irreps("4x0e + 1o"),
            radial_basis=lambda r: e3nn_jax.bessel(r, 8, 2.0),
            avg_num_neighbors=2.0,
            sh_lmax=1,
        )(edges, nodes, senders, receivers)

    senders, receivers = ring(4)
    positions = e3nn_jax.IrrepsArray("1o", floats(4, 3))
    nodes = e3nn_jax.IrrepsArray("2x0e + 1o", floats(4, 5, seed=1))
    edges = positions[receivers] - positions[senders]
    return of(net, edges, nodes, senders, receivers)


@CASES.of("haiku-geometric", "transformer")
def _() -> Haiku:
    from haiku_geometric.nn.attention import transformer

    net = lambda x: transformer.Transformer(2, 2, 4, 0.1)(x, is_training=True)
    return of(net, floats(2, 5, 8))


@CASES.of("haiku-geometric", "graph convolution")
def _() -> Haiku:
    import haiku_geometric

    senders, receivers = ring(5)
    net = lambda *args: haiku_geometric.nn.GCNConv(3)(*args)
    return of(net, floats(5, 4), senders, receivers)


@CASES.of("jumanji", "actor critic of Snake")
def _() -> Haiku:
    import jumanji.environments as environments
    from jumanji.training.networks.snake import actor_critic

    env = environments.Snake()
    nets = actor_critic.make_actor_critic_networks_snake(env, 4, [8], [8])
    _, step = env.reset(jax.random.key(0))
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), step.observation)
    return of_pure(*nets.policy_network, batch)


@CASES.of("jumanji", "transformer block")
def _() -> Haiku:
    from jumanji.training.networks import transformer_block

    net = lambda x: transformer_block.TransformerBlock(2, 4, [8], 1.0)(x, x, x)
    return of(net, floats(2, 5, 8))


@CASES.of("pgx", "AlphaZero network")
def _() -> Haiku:
    from pgx._src import baseline

    def net(x: Any) -> Any:
        made = baseline._create_az_model_v0(7, num_channels=8, num_layers=2)
        return made(x, is_training=True, test_local_stats=False)

    return of(net, floats(2, 6, 6, 3))


@CASES.of("surjectors", "transformer conditioner")
def _() -> Haiku:
    from surjectors import nn

    def net(x: Any) -> Any:
        return nn.make_transformer(3, 2, 2, 4)(x, is_training=True)

    return of(net, floats(2, 5, 8))


@CASES.of("x-mlps", "MLP-Mixer")
def _() -> Haiku:
    import x_mlps

    def net(x: Any) -> Any:
        block = x_mlps.mlpmixer_block_factory
        return x_mlps.XMLP(6, 8, 2, block, num_classes=3)(x, is_training=True)

    return of(net, floats(2, 6, 5))
