"""More cases: Flax's public surface, nothing of it in its default form.

`test_laws.py` holds the laws to them. `test_surface.py` fails on a layer or a lifted
transform that no case uses.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import Any

from catalogue import EVAL
from catalogue import KEY
from catalogue import Autoencoder
from catalogue import Case
from catalogue import Norm
from catalogue import Sow
from catalogue import Span
from catalogue import array
import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

normal = nn.initializers.normal
partial = functools.partial


# Layers that need other code around them.


class Masked(nn.Module):
    """A convolution whose mask is an array in a field, so the layer has no hash."""

    layer: Callable[..., nn.Module]
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        mask = (jnp.arange(math.prod(self.shape)) % 2).astype(x.dtype)
        return self.layer(mask=mask.reshape(self.shape))(x)


class Kernel(nn.Module):
    """A function of convolution that has a parameter of its own."""

    @nn.compact
    def __call__(self, *args, **kwargs):
        gain = self.param("gain", nn.initializers.constant(2.0), ())
        return gain * jax.lax.conv_general_dilated(*args, **kwargs)


class Pooled(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(2, (3,), padding="CAUSAL", use_bias=False)(x)
        y = nn.max_pool(x, (2,), strides=(2,), padding="SAME")
        y = nn.avg_pool(y, (2,), padding="SAME", count_include_pad=False)
        return y, nn.pool(x, 0.0, jax.lax.add, (3,), (1,), "VALID")


class TiedEmbedding(nn.Module):
    """One table to read words and to score them."""

    @nn.compact
    def __call__(self, words):
        embed = nn.Embed(5, 4, dtype=jnp.bfloat16, embedding_init=normal(1.0))
        return embed.attend(nn.Dense(4, dtype=jnp.bfloat16)(embed(words)))


def sigmoid_attention(query, key, value, mask=None, module=None):
    """Attention that sows its weights under another name, if asked."""
    weights = nn.sigmoid(jnp.einsum("...qhd,...khd->...hqk", query, key))
    if mask is not None:
        weights = jnp.where(mask, weights, 0.0)
    if module is not None:
        module.sow("maps", "weights", weights)
    return jnp.einsum("...hqk,...khd->...qhd", weights, value)


class StepwiseDecode(nn.Module):
    """A decoder that is scanned over the time, its cache carried."""

    @nn.compact
    def __call__(self, x):
        attention = nn.MultiHeadDotProductAttention(
            2, decode=True, qkv_features=4, use_bias=False, name="attention"
        )
        if self.is_initializing():
            return attention(x)
        scan = nn.scan(
            lambda module, carry, x: (carry, module(x[:, None])),
            variable_broadcast="params",
            variable_carry="cache",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
        )
        return scan(attention, (), x)[1]


class SyncNorm(nn.Module):
    """Statistics over a mapped axis."""

    @nn.compact
    def __call__(self, x, train=True):
        norm = nn.vmap(
            nn.BatchNorm,
            in_axes=(0, None),
            variable_axes={"params": None, "batch_stats": None},
            split_rngs={"params": False},
            axis_name="devices",
        )
        return norm(axis_name="devices", momentum=0.7, use_bias=False)(x, not train)


class Quantised(nn.Module):
    """Dense layers and attention in 8 bit, beside an einsum of its own weight."""

    @nn.compact
    def __call__(self, x):
        op = partial(nn.Fp8DirectDotGeneralOp, amax_history_length=3)
        x = nn.Dense(4, dot_general_cls=op)(x)
        x = nn.DenseGeneral((2, 4), dot_general_cls=OldFp8)(x)
        x = nn.MultiHeadDotProductAttention(
            2, qkv_dot_general_cls=op, out_dot_general_cls=nn.NANOOFp8DotGeneralOp
        )(x)
        w = self.param("w", normal(1.0), (4, 3))
        return nn.Fp8Einsum(amax_history_length=5)("...h,hf->...f", x, w)


class OldFp8(nn.Fp8DotGeneralOp):
    """`Fp8DotGeneralOp`, which warns of its age unless subclassed."""

    amax_history_length: int = 2


class QuantisedScan(nn.Module):
    """A collection to overwrite with gradients, stacked by a scan."""

    @nn.compact
    def __call__(self, x):
        scan = nn.scan(
            lambda dense, x, _: (dense(x), None),
            variable_axes={"params": 0, "_overwrite_with_gradient": 0},
            split_rngs={"params": True},
            length=2,
        )
        op = partial(nn.Fp8DotGeneral, amax_history_length=3)
        return scan(nn.Dense(4, dot_general_cls=op), x, None)[0]


def dot(*args, **kwargs):
    """A function of multiplication given to a layer."""
    return 2.0 * jax.lax.dot_general(*args, **kwargs)


DENSE = nn.Dense(3, kernel_init=normal(0.5), bias_init=nn.initializers.ones)
IMAGE = (array(2, 5, 5, 4),)
SEQUENCE = (array(2, 5, 4),)
WINDOW = {"kernel_size": (3, 3), "kernel_init": normal(0.5)}
NORM = {"scale_init": normal(1.0), "bias_init": normal(1.0), "epsilon": 1e-3}

LAYERS = [
    Case(
        "dense",
        lambda: nn.Dense(3, dtype=jnp.bfloat16, precision="high", dot_general=dot),
    ),
    Case(
        "dense_general",
        lambda: nn.DenseGeneral((2, 3), axis=(1, -1), batch_dims=(0,)),
        (array(2, 3, 5, 4),),
    ),
    Case(
        "einsum", lambda: nn.Einsum((4, 2, 3), "...d,dhf->...hf", bias_init=normal(1.0))
    ),
    Case(
        "einsum_at_call",
        lambda: nn.Einsum((4, 3), use_bias=False),
        (array(2, 4), "ab,bc->ac"),
    ),
    Case(
        "conv_groups",
        lambda: nn.Conv(
            8, **WINDOW, feature_group_count=2, kernel_dilation=2, padding="CIRCULAR"
        ),
        IMAGE,
    ),
    Case(
        "conv_input_dilation",
        lambda: nn.Conv(2, (3, 2), input_dilation=2, padding=[(1, 0), 2], strides=2),
        IMAGE,
    ),
    Case(
        "conv_reflect", lambda: nn.Conv(2, (3, 3), padding="REFLECT"), (array(5, 5, 4),)
    ),
    Case("conv_mask", lambda: Masked(partial(nn.Conv, 2, (3, 3)), (3, 3, 4, 2)), IMAGE),
    Case(
        "conv_function",
        lambda: nn.Conv(2, (3, 3), conv_general_dilated_cls=Kernel),
        IMAGE,
    ),
    Case(
        "conv_local",
        lambda: nn.ConvLocal(2, **WINDOW, strides=2, bias_init=normal(1.0)),
        IMAGE,
    ),
    Case(
        "conv_transpose",
        lambda: nn.ConvTranspose(
            2, **WINDOW, strides=(2, 2), padding="CIRCULAR", transpose_kernel=True
        ),
        IMAGE,
    ),
    Case(
        "conv_transpose_mask",
        lambda: Masked(
            partial(nn.ConvTranspose, 2, (2, 2), kernel_dilation=(2, 1)), (2, 2, 4, 2)
        ),
        IMAGE,
    ),
    Case("pooled", Pooled, SEQUENCE),
    Case("attend", lambda: nn.Embed(5, 4, dtype=jnp.bfloat16), method="attend"),
    Case("tied_embedding", TiedEmbedding, (jnp.array([[0, 2, 4]]),)),
    Case("embed_of_one", lambda: nn.Embed(1, 3), (jnp.zeros([2, 2], jnp.int32),)),
    Case(
        "attention_mask",
        lambda: nn.MultiHeadDotProductAttention(
            2, qkv_features=6, out_features=3, normalize_qk=True, dropout_rate=0.5
        ),
        SEQUENCE,
        train={"mask": nn.make_causal_mask(jnp.ones([2, 5])), "deterministic": False},
        test={"mask": None, "deterministic": True},
        streams=("dropout",),
    ),
    Case(
        "attention_dropout",
        lambda: nn.MultiHeadAttention(
            2, dropout_rate=0.5, broadcast_dropout=False, deterministic=False
        ),
        (array(2, 3, 4), array(2, 5, 4, seed=1), array(2, 5, 4, seed=2)),
        streams=("dropout",),
        train={"sow_weights": True},
    ),
    Case(
        "attention_dropout_rng",
        lambda: nn.MultiHeadAttention(2, dropout_rate=0.5),
        SEQUENCE,
        train={"dropout_rng": KEY, "deterministic": False},
    ),
    Case(
        "attention_function",
        lambda: nn.MultiHeadDotProductAttention(2, attention_fn=sigmoid_attention),
        SEQUENCE,
        train={"sow_weights": True},
        test={"sow_weights": False, "mask": nn.make_causal_mask(jnp.ones([2, 5]))},
        sown=("maps",),
    ),
    Case(
        "self_attention",
        lambda: nn.SelfAttention(2, use_bias=False, kernel_init=normal(1.0)),
        SEQUENCE,
    ),
    Case(
        "stepwise_decode",
        StepwiseDecode,
        SEQUENCE,
        skip={"calls_agree_in_init": "a second call would decode the full length"},
    ),
    Case(
        "batch_norm_axes",
        lambda: nn.BatchNorm(
            axis=(1, -1), momentum=0.5, use_fast_variance=False, **NORM
        ),
        (array(3, 2, 4),),
        {
            "use_running_average": False,
            "mask": jnp.array([True, True, False])[:, None, None],
        },
        {"use_running_average": True},
    ),
    Case("sync_norm", SyncNorm, (array(4, 2, 4),), **EVAL),
    Case(
        "layer_norm",
        lambda: nn.LayerNorm(reduction_axes=(1, 2), feature_axes=(1, 2), **NORM),
        SEQUENCE,
    ),
    Case("rms_norm", lambda: nn.RMSNorm(scale_init=normal(1.0), reduction_axes=(0, 1))),
    Case(
        "group_norm_size",
        lambda: nn.GroupNorm(
            num_groups=None, group_size=2, reduction_axes=(1, 3), **NORM
        ),
        IMAGE,
        {"mask": IMAGE[0] > -1.0},
    ),
    Case("instance_norm", lambda: nn.InstanceNorm(feature_axes=(1, -1), **NORM), IMAGE),
    Case(
        "weight_norm_of_conv",
        lambda: nn.WeightNorm(
            nn.Conv(2, (3, 3)), feature_axes=(-2, -1), scale_init=normal(1.0)
        ),
        IMAGE,
    ),
    Case(
        "weight_norm_of_many",
        lambda: nn.WeightNorm(
            nn.Sequential([DENSE, nn.Dense(2)]), variable_filter={"bias"}
        ),
        skip={"sharing_does_not_matter": "in another, Flax finds its names in use"},
    ),
    Case(
        "spectral_norm_of_conv",
        lambda: nn.SpectralNorm(nn.Conv(2, (3, 3)), n_steps=2, collection_name="sigma"),
        IMAGE,
        {"update_stats": True},
        {"update_stats": False},
    ),
    Case(
        "spectral_norm_of_norm",
        lambda: nn.SpectralNorm(nn.Sequential([nn.Dense(3), nn.LayerNorm()])),
        train={"update_stats": True},
        test={"update_stats": False},
    ),
    Case("prelu", lambda: nn.PReLU(negative_slope_init=0.2, param_dtype=jnp.bfloat16)),
    Case(
        "dropout_dims",
        lambda: nn.Dropout(0.5, broadcast_dims=(0,), rng_collection="mask"),
        train={"deterministic": False},
        test={"deterministic": True},
        streams=("mask",),
    ),
    Case(
        "dropout_rng", lambda: nn.Dropout(0.5, deterministic=False), train={"rng": KEY}
    ),
    Case("dropout_all", lambda: nn.Dropout(1.0, deterministic=False)),
    Case(
        "sequential_trees",
        lambda: nn.Sequential(
            [lambda x: (x, x), lambda a, b: {"inputs": a + b}, nn.Dense(2), nn.tanh]
        ),
    ),
    Case("fp8", Quantised, SEQUENCE),
    Case("fp8_scan", QuantisedScan, SEQUENCE),
]


# Recurrent layers.


class NoisyCell(nn.RNNCellBase):
    """A cell of one's own, with dropout, a norm and sown values."""

    features: int
    train: bool = True

    @nn.compact
    def __call__(self, carry, x):
        h = nn.Dense(self.features)(jnp.concatenate([carry, x], -1))
        h = nn.BatchNorm(use_running_average=not self.train)(h)
        h = nn.Dropout(0.5, deterministic=not self.train)(h)
        self.sow("trace", "h", h)
        return nn.tanh(h), h

    @nn.nowrap
    def initialize_carry(self, rng, input_shape):
        return jax.random.normal(rng, (*input_shape[:-1], self.features))

    @property
    def num_feature_axes(self):
        return 1


def noisy_rnn(train):
    return nn.RNN(
        NoisyCell(3, train),
        variable_axes={"trace": 0, "batch_stats": 0},
        split_rngs={"params": False, "dropout": True},
    )


def pairs(*shape, seed=1):
    return array(*shape, seed=seed), array(*shape, seed=seed + 1)


LENGTHS = jnp.array([2, 5])
CELL = {"carry_init": normal(1.0), "recurrent_kernel_init": normal(1.0)}

RECURRENT = [
    Case(
        "simple_cell",
        lambda: nn.SimpleCell(3, **CELL, activation_fn=nn.relu, residual=True),
        (array(2, 3, seed=1), array(2, 4)),
    ),
    Case(
        "lstm_cell",
        lambda: nn.LSTMCell(3, **CELL, gate_fn=nn.hard_sigmoid, bias_init=normal(1.0)),
        (pairs(2, 3), array(2, 4)),
    ),
    Case(
        "optimized_lstm_cell",
        lambda: nn.OptimizedLSTMCell(3, **CELL, activation_fn=nn.relu),
        (pairs(2, 3), array(2, 4)),
    ),
    Case(
        "gru_cell",
        lambda: nn.GRUCell(3, **CELL, param_dtype=jnp.bfloat16, dtype=jnp.float32),
        (array(2, 3, seed=1), array(2, 4)),
    ),
    Case(
        "mgu_cell",
        lambda: nn.MGUCell(3, **CELL, reset_gate=False),
        (array(2, 3, seed=1), array(2, 4)),
    ),
    Case(
        "conv_lstm_cell",
        lambda: nn.ConvLSTMCell(2, (3, 1), use_bias=False),
        (pairs(2, 5, 5, 2), IMAGE[0]),
    ),
    Case(
        "initialize_carry",
        lambda: nn.GRUCell(3, **CELL),
        (KEY, (2, 4)),
        method="initialize_carry",
    ),
    Case(
        "rnn_lengths",
        lambda: nn.RNN(nn.LSTMCell(3, **CELL), return_carry=True, reverse=True),
        SEQUENCE,
        {"seq_lengths": LENGTHS, "keep_order": True, "init_key": KEY},
        {"seq_lengths": None, "return_carry": False},
    ),
    Case(
        "rnn_time_major",
        lambda: nn.RNN(nn.GRUCell(3), time_major=True, unroll=2),
        (array(5, 2, 4),),
        {"initial_carry": array(2, 3), "reverse": True, "return_carry": True},
    ),
    Case(
        "rnn_of_images",
        lambda: nn.RNN(nn.ConvLSTMCell(2, (3, 3))),
        (array(2, 3, 4, 4, 1),),
    ),
    *(
        Case(
            f"rnn_of_noisy_cell_{train=}".replace("train=", "").lower(),
            partial(noisy_rnn, train),
            SEQUENCE,
            streams=("dropout",) if train else (),
            sown=("trace",),
        )
        for train in (True, False)
    ),
    Case(
        "bidirectional_carries",
        lambda: nn.Bidirectional(
            nn.RNN(nn.GRUCell(3)),
            nn.RNN(nn.OptimizedLSTMCell(3)),
            merge_fn=lambda a, b: a * b,
            time_major=True,
        ),
        (array(5, 2, 4),),
        {
            "initial_carry": (array(2, 3), pairs(2, 3)),
            "seq_lengths": LENGTHS,
            "return_carry": True,
        },
        {"init_key": KEY},
    ),
]


# Lifted transforms.


class Block(nn.Module):
    """Parameters, statistics, dropout and sown values, to be lifted."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=not self.train)(nn.Dense(4)(x))
        self.sow("trace", "h", x)
        return nn.Dropout(0.5, deterministic=not self.train)(nn.tanh(x))


class Step(nn.Module):
    """`Block` as the body of a scan."""

    train: bool = True
    block: Callable[..., Any] = Block

    @nn.compact
    def __call__(self, carry, x):
        carry = self.block(self.train, name="block")(carry)
        return carry, None if x is None else carry.sum() + x


ALL = {"params": 0, "batch_stats": 0, "trace": 0}
SPLIT = {"params": True, "dropout": True}
stacked = {"variable_axes": ALL, "split_rngs": SPLIT}

VmapTop = nn.vmap(Block, **stacked, in_axes=0, out_axes=1, axis_size=3)
VmapShared = nn.vmap(
    Block,
    variable_axes={"params": None, "batch_stats": 1, "trace": 0},
    split_rngs={nn.DenyList("dropout"): False, "dropout": True},
    axis_name="batch",
    spmd_axis_name="batch",
)
VmapMethods = nn.vmap(
    Autoencoder,
    methods={
        "encode": {"variable_axes": {"params": 0}, "split_rngs": {"params": True}},
        "decode": {**stacked, "in_axes": 1, "out_axes": 1},
    },
)
ScanTop = nn.scan(Step, **stacked, reverse=True, unroll=2, in_axes=0, out_axes=0)
ScanNoInput = nn.scan(Step, **stacked, length=3, in_axes=nn.broadcast)
ScanBroadcast = nn.scan(
    Step,
    variable_broadcast=["params", "batch_stats"],
    variable_axes={"trace": 0},
    split_rngs={"params": False},
)
RematTop = nn.remat(
    Block, prevent_cse=False, policy=jax.checkpoint_policies.dots_saveable
)
RematKwargs = nn.checkpoint(
    Norm, static_argnums=(2,), variables=["params", "batch_stats"]
)
RematScanTop = nn.remat_scan(Block, lengths=(2, 2))
RematScanMore = nn.remat_scan(
    Block,
    lengths=(3,),
    policy=jax.checkpoint_policies.everything_saveable,
    variable_broadcast="params",
    variable_axes={"batch_stats": 0, "trace": 0},
    split_rngs={"params": False, "dropout": True},
)
JitTop = nn.jit(Block)
JitStatic = nn.jit(Norm, static_argnums=(2,), variables=["params", "batch_stats"])
JitMethods = nn.jit(Autoencoder, methods=["encode", "decode"])
Doubled = nn.map_variables(
    Block,
    "params",
    lambda tree: jax.tree.map(lambda w: 2.0 * w, tree),
    lambda tree: jax.tree.map(lambda w: 0.5 * w, tree),
    mutable=True,
)
FoldRngs = nn.fold_rngs(Block)
AxisAdded = nn.add_metadata_axis(nn.Dense, {"params": 0}, {nn.PARTITION_NAME: "stage"})


class Nests(nn.Module):
    """Transforms of transforms."""

    train: bool = True
    kind: str = "scan_remat_vmap"

    @nn.compact
    def __call__(self, x):
        vmap = nn.vmap(Block, **stacked, axis_size=2)
        scan = partial(nn.scan, **stacked, length=2)
        match self.kind:
            case "scan_remat_vmap":
                step = scan(nn.remat(Step))(self.train, nn.remat(vmap))
                return step(jnp.stack([x, -x]), None)[0]
            case "jit_in_scan":
                return scan(Step)(self.train, nn.jit(Block))(x, None)[0]
            case "scan_in_jit":
                return nn.jit(scan(Step))(self.train)(x, None)[0]
            case "vmap_of_scan":
                step = nn.vmap(scan(Step), **stacked, in_axes=(0, None), axis_size=2)
                return step(self.train)(jnp.stack([x, -x]), None)[0]
            case "scan_of_scan":
                return scan(Step)(self.train, NestedScan)(x, None)[0]
            case "remat_of_jit_of_remat":
                return nn.remat(nn.jit(nn.remat(Block)))(self.train)(x)
            case "fold_in_scan":
                return scan(Step)(self.train, FoldRngs)(x, None)[0]
            case "vjp_in_remat":
                return nn.remat(InVjp)(self.train)(x)
            case "grad_in_scan":
                return scan(Step)(self.train, InVjp)(x, None)[0]


class NestedScan(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x):
        return nn.scan(Step, **stacked, length=3)(self.train, nn.remat(Block))(x, None)[
            0
        ]


class InVjp(nn.Module):
    """Statistics that move, and keys that are drawn, inside a lifted vjp."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        block = Block(self.train)
        rngs = {"params": True, "dropout": True}
        y, backward = nn.vjp(
            lambda block, x: block(x),
            block,
            x,
            vjp_variables="params",
            variables=["params", "batch_stats", "trace"],
            rngs=rngs,
        )
        params, dx = backward(jnp.ones_like(y))
        norm = sum(jnp.sum(g**2) for g in jax.tree.leaves(params))
        return y + dx + norm


class Decorated(nn.Module):
    """Transforms as decorators of methods, on and under `compact`."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        return self.jitted(self.rematted(self.mapped(jnp.stack([x, -x]))))

    @partial(nn.vmap, variable_axes={"params": None}, split_rngs={"params": False})
    @nn.compact
    def mapped(self, x):
        return nn.Dense(4, name="mapped_dense")(x)

    @nn.remat
    @nn.compact
    def rematted(self, x):
        return Block(self.train, name="rematted_block")(x)

    @nn.jit
    @nn.compact
    @nn.named_call
    def jitted(self, x):
        return Block(self.train, name="jitted_block")(x)


class ScannedMethod(nn.Module):
    """`scan` as the decorator of `__call__` itself."""

    @partial(
        nn.scan,
        variable_broadcast="params",
        variable_axes={"count": 0},
        split_rngs={"params": False, "noise": True},
        in_axes=1,
        out_axes=1,
        data_transform=lambda *groups: groups,
    )
    @nn.compact
    def __call__(self, carry, x):
        count = self.variable("count", "n", lambda: jnp.zeros([]))
        if not self.is_initializing():
            count.value += 1.0
        noise = jax.random.normal(self.make_rng("noise"), x.shape)
        carry = nn.Dense(4)(carry + x) + noise
        return carry, {"y": carry * count.value, "none": None}


class Loop(nn.Module):
    """A while loop with its own keys, its parameters broadcast."""

    @nn.compact
    def __call__(self, x):
        dense = nn.Dense(4)
        count = self.variable("count", "n", lambda: jnp.zeros([], jnp.int32))
        y = dense(x)
        if self.is_initializing():
            return y

        def body(module, carry):
            module.variable("count", "n", jnp.zeros).value += 1
            noise = jax.random.normal(module.make_rng("noise"), x.shape)
            return dense(carry) + noise

        count.value = jnp.zeros([], jnp.int32)
        return nn.while_loop(
            lambda module, _: module.get_variable("count", "n") < 3,
            body,
            self,
            y,
            carry_variables="count",
            broadcast_variables="params",
            split_rngs={"noise": True},
        )


class Choice(nn.Module):
    """Branches that draw keys and move statistics, each of its own."""

    train: bool = True

    @nn.compact
    def __call__(self, x, index):
        def branch(i):
            return lambda module, x: module.blocks(i)(x)

        if self.is_initializing():
            x = sum(branch(i)(self, x) for i in range(3)) / 3.0
        else:
            x = nn.switch(index, [branch(i) for i in range(3)], self, x)
        last = nn.Dense(4, name="last")
        y = last(x)
        return nn.cond(index > 0, lambda m, x: m(x), lambda m, x: x, last, y)

    @nn.nowrap
    def blocks(self, i):
        return Block(self.train, name=f"block_{i}")


class Derivatives(nn.Module):
    """`jvp`, `vjp` and `grad` with every option, over the module itself."""

    @nn.compact
    def __call__(self, x):
        one, two = nn.Dense(4, name="one"), nn.Dense(4, name="two")
        y = two(one(x))

        def loss(module, x, scale):
            y = two(one(x))
            return scale * jnp.sum(y**2), {"y": y}

        aux, grads = nn.grad(loss, self, x, 2.0, has_aux=True, variables="params")
        value, more = nn.value_and_grad(loss, self, x, 3.0, has_aux=True)
        loss_vjp = partial(nn.vjp, loss, has_aux=True, vjp_variables="params")
        _, back, aux_vjp = loss_vjp(self, x, 1.0)
        ones = jax.tree.map(jnp.ones_like, one.variables["params"])
        primal, tangent = nn.jvp(
            lambda m, x: m(x), one, (x,), (jnp.zeros_like(x),), {"params": ones}
        )
        return y, aux, grads, value, more, back(jnp.ones([])), aux_vjp, primal, tangent


class OwnGradient(nn.Module):
    """A gradient written by hand, with an argument that has none."""

    @nn.compact
    def __call__(self, x):
        def forward(module, mode, x):
            y, backward = nn.vjp(lambda m, x: m(x), module, x)
            return y, (backward, jnp.sign(y))

        def backward(mode, residual, cotangent):
            assert mode == "clip"
            params, dx = residual[0](cotangent * residual[1])
            return jax.tree.map(lambda g: jnp.clip(g, -0.1, 0.1), params), dx

        clipped = nn.custom_vjp(
            lambda m, mode, x: m(x),
            forward_fn=forward,
            backward_fn=backward,
            grad_vars="params",
            nondiff_argnums=(1,),
        )
        return clipped(nn.Dense(3), "clip", x)


class MappedStats(nn.Module):
    """State that a lifted function sees under another form, and writes back."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        square = lambda tree: jax.tree.map(jnp.square, tree)
        root = lambda tree: jax.tree.map(jnp.sqrt, tree)
        norm = nn.map_variables(nn.BatchNorm, "batch_stats", root, square, mutable=True)
        return norm(use_running_average=not self.train)(x)


class Frozen(nn.Module):
    """Parameters made by the module itself, then seen without gradient."""

    train: bool = True

    @nn.compact
    def __call__(self, x):
        stop = lambda tree: jax.tree.map(jax.lax.stop_gradient, tree)
        init = self.is_initializing()
        return nn.map_variables(Block, "params", stop, init=init)(self.train)(x)


class Lora(nn.Module):
    """Shares the scope of the layer that it wraps, a field or a child of its own."""

    base: nn.Module | None = None

    def setup(self):
        self.layer = self.base or nn.Dense(3)
        nn.share_scope(self, self.layer)

    @nn.compact
    def __call__(self, x):
        a = self.param("A", normal(1.0), (x.shape[-1], 2))
        b = self.param("B", normal(1.0), (2, 3))
        return self.layer(x) + x @ a @ b


class LoraOfSibling(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Lora(nn.Dense(3, name="base"))(x)


class NameScopes(nn.Module):
    """Methods that name a scope of their own, one of which calls the other."""

    @nn.compact_name_scope
    def up(self, x):
        return nn.Dense(5)(x)

    @nn.compact_name_scope
    def down(self, x):
        return nn.Dense(4)(self.up(nn.Dense(4)(x)))

    def __call__(self, x):
        return self.up(x).sum() + self.down(x)


def both(name: str, make: Callable[[bool], nn.Module], *args: Any, **options: Any):
    """The case in training and in evaluation, where the mode is a field."""
    return [
        Case(
            f"{name}_train", partial(make, True), *args, streams=("dropout",), **options
        ),
        Case(f"{name}_eval", partial(make, False), *args, **options),
    ]


TRACE = {"sown": ("trace",)}
THREE = (array(3, 2, 4),)
INIT_ANEW = {"calls_agree_in_init": "init=True makes the parameters at every init call"}

NO_PLAIN_PARENT = {
    "one_pass_init": "Flax refuses it in a parent without `compact`, as is the counter"
}

LIFTED = [
    *both("vmap_top", VmapTop, THREE, **TRACE),
    *both("vmap_shared", VmapShared, THREE, **TRACE),
    Case("vmap_method", VmapMethods, THREE, method="encode"),
    Case("vmap_other_method", VmapMethods, (array(2, 5, 3),), method="decode"),
    *both("scan_top", ScanTop, (array(2, 4), jnp.arange(4.0)), **TRACE),
    *both("scan_no_input", ScanNoInput, (array(2, 4), 1.5), **TRACE),
    Case(
        "scan_broadcast",
        lambda: ScanBroadcast(False),
        (array(2, 4), jnp.arange(3.0)),
        **TRACE,
    ),
    *both("remat_top", RematTop, **TRACE),
    Case("remat_static", RematKwargs, (array(2, 4), True)),
    *both("remat_scan_top", RematScanTop, **TRACE),
    *both("remat_scan_broadcast", RematScanMore, **TRACE),
    *both("jit_top", JitTop, **TRACE),
    Case("jit_static", JitStatic, (array(2, 4), True)),
    Case("jit_method", JitMethods, method="encode"),
    *both("map_variables_top", Doubled, **TRACE),
    *both("map_variables_init", Frozen, **TRACE, skip=INIT_ANEW),
    *both("fold_rngs", FoldRngs, **TRACE),
    Case(
        "add_metadata_axis",
        lambda: AxisAdded(
            3, kernel_init=nn.with_partitioning(normal(1.0), ("stage", "in", "out"))
        ),
    ),
    *both("scan_remat_vmap", Nests, **TRACE),
    *(
        Case(kind, partial(Nests, kind=kind), streams=("dropout",), **TRACE)
        for kind in (
            "jit_in_scan",
            "scan_in_jit",
            "vmap_of_scan",
            "scan_of_scan",
            "remat_of_jit_of_remat",
            "fold_in_scan",
            "vjp_in_remat",
            "grad_in_scan",
        )
    ),
    *both("vjp", InVjp, **TRACE),
    *both("decorated", Decorated, **TRACE),
    Case(
        "scanned_method",
        ScannedMethod,
        (array(2, 4), array(2, 3, 4)),
        streams=("noise",),
    ),
    Case(
        "loop",
        Loop,
        streams=("noise",),
        skip={"same_grad": "JAX has no reverse-mode gradient of a while loop"},
    ),
    *both("choice", Choice, (array(2, 4), jnp.int32(2)), **TRACE),
    Case("derivatives", Derivatives),
    Case("own_gradient", OwnGradient),
    *both("mapped_stats", MappedStats),
    Case("share_scope", LoraOfSibling),
    Case("share_scope_of_child", Lora),
    Case("name_scopes", NameScopes, skip=NO_PLAIN_PARENT),
    Case("name_scope_as_method", NameScopes, method="down", skip=NO_PLAIN_PARENT),
]


# Forms that a module can have.


class Compacts(nn.Module):
    """Several compact methods and one lazily made submodule."""

    @nn.compact
    def __call__(self, x):
        return self.head(self.body(x))

    @nn.compact
    def body(self, x):
        return nn.Dense(4, name="body")(x)

    @nn.compact
    def head(self, x):
        if not hasattr(self, "scale"):
            x = x * self.param("scale", normal(1.0), ())
        return nn.Dense(2, name="head")(x)


class Lazy(nn.Module):
    """Submodules made when first used, in `setup` and in a method."""

    def setup(self):
        self.unused = nn.Dense(7)
        self.layers = {
            "a": [nn.Dense(4), nn.Dense(4)],
            "b": (nn.Dense(4), [nn.Dense(4)]),
        }
        self.make = partial(nn.Dense, 3)

    def __call__(self, x, keys=("b", "a")):
        for key in keys:
            for layer in jax.tree.leaves(
                self.layers[key], is_leaf=lambda m: isinstance(m, nn.Module)
            ):
                x = nn.tanh(layer(x))
        return x


class Shares(nn.Module):
    """Hands one child to two others as their field."""

    @nn.compact
    def __call__(self, x):
        child = nn.Dense(4, name="child")
        one, two = Wrap(child, name="one"), Wrap(child, name="two")
        return two(one(x)) + Wrap(child)(x)


class Wrap(nn.Module):
    inner: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.inner(nn.LayerNorm()(x))


@flax.struct.dataclass
class Tools:
    """A pytree dataclass that holds modules, arrays and what is no pytree."""

    layer: nn.Module
    shift: jax.Array
    activation: Callable[..., Any] = flax.struct.field(
        pytree_node=False, default=nn.tanh
    )


@flax.struct.dataclass
class Config:
    """One that holds another."""

    head: nn.Module
    tools: Tools
    width: int = flax.struct.field(pytree_node=False, default=4)


class Fields(nn.Module):
    """Modules in lists, dicts, tuples and dataclasses; functions, arrays, statics."""

    layers: Sequence[nn.Module]
    heads: dict[str, Any]
    config: Config
    activation: Callable[..., Any] = lambda x: x * 2.0
    make: type[nn.Module] = nn.Dense
    shift: Any = None
    mode: str = "plain"

    @nn.compact
    def __call__(self, x):
        for layer in self.layers:
            x = self.activation(layer(x))
        tools = self.config.tools
        x = tools.activation(tools.layer(x) + tools.shift)
        x = self.make(self.config.width)(self.config.head(x)) + self.shift
        y = {name: head(x) for name, (head,) in self.heads.items()}
        return y if self.mode == "plain" else None


def fields():
    shared = nn.Dense(4)
    return Fields(
        [nn.Dense(4), shared, shared],
        {"a": (nn.Dense(2),), "b": [nn.Sequential([nn.relu, shared])]},
        Config(
            nn.BatchNorm(use_running_average=False),
            Tools(nn.Dense(4, name="tool"), jnp.ones([1, 4])),
        ),
        shift=jnp.full([2, 4], 0.5),
    )


class Base(nn.Module):
    features: int
    scale: float = dataclasses.field(default=2.0, kw_only=True)

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.features, name="base")(x) * self.scale


class Derived(Base):
    """Extends what it inherits, and its fields come before the inherited default."""

    width: int = 3
    extra: int = dataclasses.field(kw_only=True, default=2)

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.extra, name="derived")(super().__call__(x))


class KwOnly(nn.Module, kw_only=True):
    width: int = 3
    depth: int

    @nn.compact
    def __call__(self, *, inputs, extra=None):
        x = inputs if extra is None else inputs + extra
        for _ in range(self.depth):
            x = nn.Dense(self.width)(x)
        return x


class PostInit(nn.Module):
    """Settles its fields after construction."""

    features: int
    layers: Any = None

    def __post_init__(self):
        if self.layers is None:
            self.layers = tuple(nn.Dense(self.features) for _ in range(2))
        super().__post_init__()

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Properties(nn.Module):
    """Properties, class methods and static methods, some of which use submodules."""

    features: int = 3

    def setup(self):
        self.dense = nn.Dense(self.features)

    @property
    def kernel(self):
        return self.dense.variables["params"]["kernel"]

    @functools.cached_property
    def doubled(self):
        return 2 * self.features

    @classmethod
    def build(cls, half):
        return cls(half * 2)

    @staticmethod
    def activation(x):
        return jnp.sin(x)

    def __call__(self, x):
        return self.activation(self.dense(x)) @ self.kernel.T * self.doubled


class NoArguments(nn.Module):
    @nn.compact
    def __call__(self):
        return self.param("table", normal(1.0), (2, 3))


class Nothing(nn.Module):
    """Returns None, and keeps what it saw."""

    @nn.compact
    def __call__(self, x):
        mean = self.variable("stats", "mean", jnp.zeros, (3,))
        mean.value = mean.value * 0.5 + nn.Dense(3)(x).mean(0)


class Outputs(nn.Module):
    """Every kind of output, from every kind of input."""

    @nn.compact
    def __call__(self, pair, scale, flag, mode, function, *rest, none, **more):
        assert none is None
        assert rest == ("rest",)
        x = function(nn.Dense(3)(pair.left + pair.right)) * scale
        if flag:
            x = -x
        empty = ((), [], {}, None)
        return Span(x, (x.sum(), 1, 2.0, True)), empty, {"key": KEY, **more}


class Variadic(nn.Module):
    """Runs a list of functions of itself."""

    @nn.compact
    def __call__(self, functions):
        return [function(self) for function in functions]


class SowsAndKeeps(nn.Module):
    """Submodules that sow beside a variable that is kept, in a lifted transform."""

    @nn.compact
    def __call__(self, x):
        x = nn.remat(Block)()(Sow(name="sow")(x, True) @ jnp.ones([2, 4]))
        keep = self.variable("kept", "keep", lambda: {"h": jnp.zeros([]), "e": {}})
        keep.value = {"h": keep.value["h"] + x.mean(), "e": {}}
        return x


class Merged(nn.Module):
    """Layers under `BatchApply`, and a bound method of a child as a value."""

    def setup(self):
        self.autoencoder = Autoencoder()
        self.norm = nn.LayerNorm()

    def __call__(self, x):
        x = nn.BatchApply(self.autoencoder.encode)(x)
        return nn.BatchApply(self.norm, num_dims=3)(x)


class Rebound(nn.Module):
    """A child that is cloned, copied and read before it is called."""

    @nn.compact
    def __call__(self, x):
        child = nn.Dense(4).copy(features=3)
        other = child.copy(name="other", use_bias=False)
        y = child(x) + other(x)
        assert child.has_variable("params", "kernel")
        pure, variables = child.unbind()
        return y + pure.apply(variables, x) + nn.Dense(3).bind(variables)(x)


class ByFunction(nn.Module):
    """The variables of another module as a parameter and a variable."""

    @nn.compact
    def __call__(self, x):
        inner = Norm(parent=None)
        tree = self.param("inner", lambda key: inner.init(key, x)["params"])
        stats = self.variable(
            "stats", "inner", lambda: inner.init(KEY, x)["batch_stats"]
        )
        variables = {"params": tree, "batch_stats": stats.value}
        y, new = inner.apply(variables, x, mutable=["batch_stats"])
        stats.value = new["batch_stats"]
        return y


FORMS = [
    Case("compacts", Compacts),
    Case("compact_part", Compacts, method="head"),
    Case("lazy", Lazy),
    Case("lazy_part", Lazy, train={"keys": ("a",)}),
    Case("shares", Shares),
    Case("fields", fields),
    Case("derived", lambda: Derived(4, scale=0.5)),
    Case(
        "kw_only",
        lambda: KwOnly(depth=2),
        (),
        {"inputs": array(2, 4)},
        {"inputs": array(2, 4), "extra": array(2, 4, seed=1)},
    ),
    Case("post_init", lambda: PostInit(4)),
    Case("properties", lambda: Properties.build(2)),
    Case("no_arguments", NoArguments, ()),
    Case("nothing", Nothing),
    Case(
        "outputs",
        Outputs,
        (Span(array(2, 4), array(2, 4, seed=1)), 2.0, True, "mode", jnp.sin, "rest"),
        {"none": None, "more": array(2)},
    ),
    Case(
        "functions",
        Variadic,
        ([lambda m: nn.Dense(2, parent=m, name="d")(array(2, 4)), lambda m: None],),
    ),
    Case(
        "sows_and_keeps",
        SowsAndKeeps,
        streams=("dropout",),
        sown=("trace", "losses", "last", "perturbations"),
    ),
    Case("batch_apply", Merged, THREE),
    Case("rebound", Rebound),
    Case("by_function", ByFunction),
]

CASES = [*LAYERS, *RECURRENT, *LIFTED, *FORMS]
