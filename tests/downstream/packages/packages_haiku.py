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
import packages_swap

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


@CASES.of("dm-haiku", "variational autoencoder")
def _() -> Haiku:
    def net(x: Any) -> Any:
        h = jax.nn.relu(hk.Linear(8)(hk.Flatten()(x)))
        mean, log_std = hk.Linear(3, name="mean")(h), hk.Linear(3, name="std")(h)
        noise = jax.random.normal(hk.next_rng_key(), mean.shape)
        code = mean + jnp.exp(log_std) * noise
        again = hk.nets.MLP([8, 16], name="decoder")(code)
        return again.reshape(x.shape), mean, log_std

    return of(net, floats(2, 4, 4, 1))


@CASES.of("dm-haiku", "agent with a convolutional torso and a memory")
def _() -> Haiku:
    def net(frames: Any, ends: Any) -> Any:
        def torso(x: Any) -> Any:
            for channels in (4, 8):
                x = hk.Conv2D(channels, 3)(x)
                x = hk.max_pool(x, [3, 3, 1], 2, "SAME")
                x += hk.Conv2D(channels, 3)(jax.nn.relu(x))
            return jax.nn.relu(hk.Linear(8)(hk.Flatten()(jax.nn.relu(x))))

        core = hk.ResetCore(hk.LSTM(4))
        start = core.initial_state(frames.shape[1])
        inputs = hk.BatchApply(torso)(frames), ends
        hidden, _ = hk.dynamic_unroll(core, inputs, start)
        heads = hk.Linear(3, name="policy"), hk.Linear(1, name="value")
        return [hk.BatchApply(head)(hidden) for head in heads]

    return of(net, floats(4, 2, 8, 8, 3), floats(4, 2) > 0)


@CASES.of("alphafold-colabfold", "iteration of the Evoformer")
def _() -> Haiku:
    from alphafold.model import common_modules
    from alphafold.model import config
    from alphafold.model import modules

    model = config.model_config("model_1").model

    def net(msa: Any, pair: Any) -> Any:
        block = modules.EvoformerIteration(
            model.embeddings_and_evoformer.evoformer, model.global_config, False
        )
        masks = {"msa": jnp.ones(msa.shape[:2]), "pair": jnp.ones(pair.shape[:2])}
        return block({"msa": msa, "pair": pair}, masks, is_training=True)

    layers = {
        common_modules.Linear: packages_swap.folding_linear,
        common_modules.LayerNorm: packages_swap.folding_norm,
    }
    return Haiku(
        hk.transform_with_state(net), (floats(3, 5, 16), floats(5, 5, 8)), layers
    )


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


@CASES.of("distrax", "spline flow")
def _() -> Haiku:
    import distrax

    def spline(params: Any) -> Any:
        return distrax.RationalQuadraticSpline(params, range_min=-3.0, range_max=3.0)

    def net(x: Any) -> Any:
        layers = []
        for turn in range(2):
            conditioner = hk.Sequential(
                [
                    hk.nets.MLP([8], activate_final=True),
                    hk.Linear(4 * (3 * 4 + 1)),
                    hk.Reshape([4, 3 * 4 + 1]),
                ]
            )
            mask = jnp.arange(4) % 2 == turn
            layers.append(distrax.MaskedCoupling(mask, conditioner, spline))
        base = distrax.MultivariateNormalDiag(jnp.zeros(4), jnp.ones(4))
        flow = distrax.Transformed(base, distrax.Chain(layers))
        return flow.log_prob(x)

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


@CASES.of("jumanji", "actor critic of the travelling salesman")
def _() -> Haiku:
    import jumanji.environments as environments
    from jumanji.training.networks.tsp import actor_critic

    env = environments.TSP()
    nets = actor_critic.make_actor_critic_networks_tsp(
        env, 2, 2, 4, [8], mean_cities_in_query=True
    )
    _, step = env.reset(jax.random.key(0))
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), step.observation)
    return of_pure(*nets.policy_network, batch)


@CASES.of("mctx", "search with the AlphaZero network of pgx")
def _() -> Haiku:
    import mctx
    import pgx
    from pgx._src import baseline

    env = pgx.make("tic_tac_toe")
    states = jax.vmap(env.init)(jax.random.split(jax.random.key(0), 2))

    def evaluate(observation: Any) -> Any:
        made = baseline._create_az_model_v0(9, num_channels=8, num_layers=2)
        training = hk.running_init()  # which makes the averages
        return made(observation, is_training=training, test_local_stats=False)

    f = hk.without_apply_rng(hk.transform_with_state(evaluate))

    def search(params: Any, state: Any, key: Any, observation: Any) -> Any:
        def recurrent(params: Any, key: Any, action: Any, states: Any) -> Any:
            player = states.current_player
            states = jax.vmap(env.step)(states, action)
            seen = states.observation.astype(jnp.float32)
            (logits, value), _ = f.apply(params, state, seen)
            step = mctx.RecurrentFnOutput(
                reward=jax.vmap(lambda rewards, of: rewards[of])(
                    states.rewards, player
                ),
                discount=jnp.where(states.terminated, 0.0, -1.0),
                prior_logits=logits,
                value=jnp.where(states.terminated, 0.0, value),
            )
            return step, states

        (logits, value), new = f.apply(params, state, observation)
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=states)
        root, frozen = jax.lax.stop_gradient((root, params))  # a search has no gradient
        found = mctx.gumbel_muzero_policy(frozen, key, root, recurrent, 8)
        return (logits, value, found.action_weights), new

    network = hk.TransformedWithState(f.init, search)
    return Haiku(network, (states.observation.astype(jnp.float32),))


@CASES.of("pgx", "AlphaZero network")
def _() -> Haiku:
    from pgx._src import baseline

    def net(x: Any) -> Any:
        made = baseline._create_az_model_v0(7, num_channels=8, num_layers=2)
        return made(x, is_training=True, test_local_stats=False)

    return of(net, floats(2, 6, 6, 3))


@CASES.of("rlax", "distributional agent and its loss")
def _() -> Haiku:
    import rlax

    atoms = jnp.linspace(-1.0, 1.0, 5)

    def net(before: Any, actions: Any, rewards: Any, after: Any) -> Any:
        body = hk.Sequential(
            [hk.Flatten(), hk.nets.MLP([8, 3 * 5]), hk.Reshape([3, 5])]
        )
        logits, next_logits = body(before), body(after)
        values = jnp.sum(jax.nn.softmax(next_logits) * atoms, axis=-1)
        loss = jax.vmap(
            rlax.categorical_double_q_learning, in_axes=(None, 0, 0, 0, 0, None, 0, 0)
        )
        discounts = jnp.full_like(rewards, 0.9)
        return loss(
            *(atoms, logits, actions, rewards, discounts, atoms, next_logits, values)
        )

    ids = jnp.array([0, 2, 1])
    return of(net, floats(3, 4, 4), ids, floats(3), floats(3, 4, 4, seed=1))


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
