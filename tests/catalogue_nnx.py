"""Cases of NNX: its layers, and modules each for one thing that NNX can do.

An instance holds its values, and is shared by all laws of a case: no bridge may change
it. `catalogue_nnx_models.py` has whole models.
"""

from collections.abc import Callable
import functools
from typing import Any

from catalogue import Case
from catalogue import Span
from catalogue import array
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from hk_bridge import FlaxModule

partial = functools.partial


def case(name: str, build: Callable[[nnx.Rngs], Any], *args: Any, **options: Any):
    """A case whose instance is built once, and outside of whatever is traced."""

    @functools.cache
    def make() -> Any:
        with jax.ensure_compile_time_eval():
            return build(nnx.Rngs(0, params=1, dropout=2, carry=3, noise=4))

    return Case(name, make, *args, **options)


TEXT = (jnp.array([[0, 2, 1], [4, 1, 3]]),)
IMAGE = (array(2, 5, 5, 4),)
SEQUENCE = (array(2, 5, 4),)
AVERAGE = {
    "train": {"use_running_average": False},
    "test": {"use_running_average": True},
}
DROP = {
    "streams": ("dropout",),
    "train": {"deterministic": False},
    "test": {"deterministic": True},
}
normal = nnx.initializers.normal


class Carried(nnx.Module):
    """A recurrent cell from its own first carry."""

    def __init__(self, cell, rngs, **options):
        self.cell = cell(4, 3, rngs=rngs)
        self.rngs = rngs.carry.fork()
        self.options = options

    def __call__(self, x):
        carry = self.cell.initialize_carry(x.shape, self.rngs, **self.options)
        for _ in range(2):
            carry, y = self.cell(carry, x)
        return carry, y


def prefilled(rngs: nnx.Rngs, **options: Any) -> nnx.MultiHeadAttention:
    """Attention with a cache of five places."""
    attention = nnx.MultiHeadAttention(2, 4, decode=True, rngs=rngs, **options)
    attention.init_cache((2, 5, 4))
    return attention


def lora(rngs: nnx.Rngs) -> nnx.LoRA:
    base = nnx.Linear(4, 3, rngs=rngs)
    return nnx.LoRA(4, 2, 3, base_module=base, b_initializer=normal(1.0), rngs=rngs)


def bidirectional(rngs: nnx.Rngs) -> nnx.Bidirectional:
    cells = [nnx.GRUCell(4, 3, rngs=rngs) for _ in range(2)]
    return nnx.Bidirectional(*map(partial(nnx.RNN, rngs=rngs), cells), rngs=rngs)


LAYERS = [
    case("nnx_linear", lambda rngs: nnx.Linear(4, 3, rngs=rngs)),
    case(
        "nnx_linear_half",
        lambda rngs: nnx.Linear(
            4, 3, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=rngs
        ),
        (array(2, 4, dtype=jnp.bfloat16),),
    ),
    case(
        "nnx_linear_general",
        lambda rngs: nnx.LinearGeneral((3, 4), (2, 3), axis=(1, -1), rngs=rngs),
        (array(2, 3, 4),),
    ),
    case(
        "nnx_einsum",
        lambda rngs: nnx.Einsum("nta,hab->nthb", (2, 4, 3), (2, 3), rngs=rngs),
        (array(2, 5, 4),),
    ),
    case(
        "nnx_conv",
        lambda rngs: nnx.Conv(
            4, 2, (3, 3), strides=2, feature_group_count=2, rngs=rngs
        ),
        IMAGE,
    ),
    case(
        "nnx_conv_transpose",
        lambda rngs: nnx.ConvTranspose(4, 2, (3, 3), strides=(2, 2), rngs=rngs),
        IMAGE,
    ),
    case("nnx_embed", lambda rngs: nnx.Embed(5, 3, rngs=rngs), TEXT),
    case(
        "nnx_embed_attend",
        lambda rngs: nnx.Embed(5, 4, rngs=rngs),
        method="attend",
    ),
    case(
        "nnx_batch_norm",
        lambda rngs: nnx.BatchNorm(4, momentum=0.5, rngs=rngs),
        **AVERAGE,
        values="statistics over several steps",
    ),
    case("nnx_layer_norm", lambda rngs: nnx.LayerNorm(4, rngs=rngs)),
    case(
        "nnx_rms_norm", lambda rngs: nnx.RMSNorm(4, scale_init=normal(1.0), rngs=rngs)
    ),
    case("nnx_group_norm", lambda rngs: nnx.GroupNorm(4, 2, rngs=rngs), IMAGE),
    case("nnx_instance_norm", lambda rngs: nnx.InstanceNorm(4, rngs=rngs), IMAGE),
    case(
        "nnx_dropout",
        lambda rngs: nnx.Dropout(0.5, rngs=rngs),
        **DROP,
        values="masks are made outside of a compiled program",
    ),
    case(
        "nnx_dropout_of_default",
        lambda rngs: nnx.Dropout(0.5, broadcast_dims=(0,), rngs=nnx.Rngs(0)),
        **{**DROP, "streams": ("default",)},
    ),
    case("nnx_lora", lora),
    case(
        "nnx_lora_linear",
        lambda rngs: nnx.LoRALinear(
            4, 3, lora_rank=2, b_initializer=normal(1.0), rngs=rngs
        ),
    ),
    case(
        "nnx_attention",
        lambda rngs: nnx.MultiHeadAttention(
            4, 8, normalize_qk=True, decode=False, rngs=rngs
        ),
        (array(2, 3, 8), array(2, 5, 8, seed=1)),
    ),
    case(
        "nnx_attention_dropout",
        lambda rngs: nnx.MultiHeadAttention(
            2, 4, dropout_rate=0.5, decode=False, rngs=rngs
        ),
        SEQUENCE,
        **DROP,
    ),
    case(
        "nnx_attention_decode",
        prefilled,
        (array(2, 1, 4),),
        values="a cache over several steps",
    ),
    case(
        "nnx_lstm_cell",
        lambda rngs: Carried(nnx.LSTMCell, rngs),
        streams=("carry",),
    ),
    case(
        "nnx_optimized_lstm_cell",
        lambda rngs: Carried(nnx.OptimizedLSTMCell, rngs),
        streams=("carry",),
    ),
    case(
        "nnx_gru_cell",
        lambda rngs: Carried(nnx.GRUCell, rngs, carry_init=normal(1.0)),
        streams=("carry",),
    ),
    case(
        "nnx_simple_cell",
        lambda rngs: Carried(nnx.SimpleCell, rngs),
        streams=("carry",),
    ),
    case(
        "nnx_rnn",
        lambda rngs: nnx.RNN(nnx.LSTMCell(4, 3, rngs=rngs), return_carry=True),
        SEQUENCE,
        streams=("carry",),
    ),
    case("nnx_bidirectional", bidirectional, SEQUENCE, streams=("carry",)),
    case(
        "nnx_sequential",
        lambda rngs: nnx.Sequential(
            nnx.Linear(4, 3, rngs=rngs), nnx.relu, nnx.LayerNorm(3, rngs=rngs)
        ),
    ),
    case("nnx_prelu", lambda rngs: nnx.PReLU(0.25)),
]


# What a module holds.


class Deep(nnx.Module):
    """Lists of lists, and dicts with names that Haiku would refuse."""

    def __init__(self, rngs):
        make = lambda: nnx.Linear(4, 4, rngs=rngs)
        self.rows = nnx.List([nnx.List([make(), make()]), nnx.List([make()])])
        odd = ("0", "a/b", "~", "~init", "%2F", " ", "é")
        self.named = nnx.Dict({name: make() for name in odd})
        self.plain = nnx.data([{"w": make()}, (nnx.Param(rngs.params.normal((4,))),)])

    def __call__(self, x):
        for row in self.rows:
            for layer in row:
                x = layer(x)
        for layer in self.named.values():
            x = jnp.tanh(layer(x))
        one, (shift,) = self.plain
        return one["w"](x) + shift[None]


class Shared(nnx.Module):
    """One submodule in two places, and one Variable in two layers."""

    def __init__(self, rngs):
        self.first = nnx.Linear(4, 4, rngs=rngs)
        self.again = self.first
        self.tied = nnx.Linear(4, 4, use_bias=False, rngs=rngs)
        self.tied.kernel = self.first.kernel
        self.parts = nnx.List([self.first, self.tied])
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.norms = nnx.List([self.norm, self.norm])

    def __call__(self, x):
        x = self.tied(self.again(self.first(x)))
        for part in (*self.parts, *self.norms):
            x = part(x)
        return x


class Node(nnx.Module):
    """A child that knows its parent, which makes a circle."""

    def __init__(self, parent, rngs):
        self.parent = parent
        self.layer = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return self.layer(x) * self.parent.scale[...]


class Circle(nnx.Module):
    def __init__(self, rngs):
        self.scale = nnx.Param(jnp.float32(2.0))
        self.child = Node(self, rngs)
        self.other = Node(self, rngs)
        self.itself = self

    def __call__(self, x):
        return self.itself.other(self.child(x))


class Static(nnx.Module):
    """Attributes that are no arrays."""

    def __init__(self, rngs):
        self.activation = jnp.tanh
        self.mode, self.sizes, self.dtype = "up", (4, 3), jnp.float32
        self.options = nnx.static({"scale": 2.0, "names": ("a", "b")})
        self.nothing = None
        self.layer = nnx.Linear(*self.sizes, rngs=rngs)

    def __call__(self, x):
        y = self.activation(self.layer(x)) * self.options["scale"]
        return {"y": y.astype(self.dtype), "mode": self.mode, "none": self.nothing}


class Frozen(nnx.Module):
    """Arrays that are no Variables: constants."""

    def __init__(self, rngs):
        self.table = nnx.data(jnp.arange(4.0))
        self.more = nnx.data({"scale": jnp.float32(3.0)})
        self.layer = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.layer(x * self.more["scale"] + self.table[None])


class Values(nnx.Module):
    """Variables that hold trees, and one that holds nothing."""

    def __init__(self, rngs):
        make = lambda: rngs.params.normal((4,))
        self.pair = nnx.Param((make(), make()))
        self.tree = nnx.Param({"w": {"v": make()}, "e": {}})
        self.span = nnx.Param(Span(make(), make()))
        self.scalar = nnx.Param(jnp.bfloat16(0.5))
        self.none = nnx.Variable(None)

    def __call__(self, x):
        shift = self.pair[0] + self.tree["w"]["v"] + self.span.get_value().left
        assert self.none.get_value() is None
        scalar = self.scalar[...].astype(jnp.float32)
        return x + shift[None] * scalar


class Numbers(nnx.Module):
    """Variables that hold numbers of Python."""

    def __init__(self):
        self.scale = nnx.Param(2.0)
        self.steps = nnx.Variable(1)

    def __call__(self, x):
        self.steps.set_value(self.steps.get_value() + 1)
        steps = jnp.asarray(self.steps.get_value(), x.dtype)
        return x * self.scale.get_value() + steps


class Count(nnx.Variable):
    """A type of the user's own."""


class Weight(nnx.Param):
    """A type of the user's own that descends from another."""


class Positive(nnx.Param):
    """Holds the logarithm of what it gives."""

    def get_value(self, **index):
        return jnp.exp(super().get_value(**index))


class State(nnx.Module):
    """Variables of every type, written at each call."""

    def __init__(self, rngs):
        self.count = Count(jnp.zeros([], jnp.int32))
        self.flag = nnx.Variable(jnp.zeros([], bool))
        self.span = nnx.Variable(Span(jnp.zeros([]), jnp.ones([])))
        self.tree = nnx.Cache({"a": jnp.zeros([]), "b": (jnp.ones([]),)})
        self.key = nnx.Variable(jax.random.key(7))
        self.weight = Weight(rngs.params.normal((4,)))
        self.positive = Positive(rngs.params.normal((4,)))

    def __call__(self, x):
        self.count[...] += 1
        self.flag.set_value(~self.flag[...])
        span, tree = self.span.get_value(), self.tree.get_value()
        self.span.set_value(span.replace(left=span.left + 1.0))
        self.tree.set_value({"a": tree["a"] + 2.0, "b": (tree["b"][0] * 2.0,)})
        self.key.set_value(jax.random.fold_in(self.key.get_value(), 1))
        noise = jax.random.normal(self.key.get_value(), x.shape)
        gain = self.weight[...] * self.positive.get_value()
        return (x + noise) * gain[None] + span.left + self.tree.get_value()["a"]


class OnlyState(nnx.Module):
    def __init__(self):
        self.last = nnx.Cache(jnp.zeros([2, 4]))

    def __call__(self, x):
        last = self.last[...]
        self.last[...] = x
        return x + last


class Nothing(nnx.Module):
    def __call__(self, x):
        return jnp.sin(x)


class Metrics(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)
        self.metrics = nnx.MultiMetric(
            loss=nnx.metrics.Average("loss"),
            accuracy=nnx.metrics.Accuracy(),
        )
        self.spread = nnx.metrics.Welford()

    def __call__(self, x):
        y = self.layer(x)
        labels = jnp.zeros(x.shape[:1], jnp.int32)
        with jax.numpy_dtype_promotion("standard"):  # they count in integers
            self.metrics.update(loss=(y**2).mean(), logits=y, labels=labels)
            self.spread.update(values=y)
            return y, self.metrics.compute()


class Boxed(nnx.Module):
    """Variables with metadata: axes of a mesh, and what a user adds."""

    def __init__(self, rngs):
        init = nnx.with_partitioning(normal(1.0), ("in", "out"), note="a")
        self.layer = nnx.Linear(4, 3, kernel_init=init, rngs=rngs)
        self.count = Count(jnp.zeros([]), note="b")

    def __call__(self, x):
        self.count[...] += 1.0
        return self.layer(x) * self.count[...]


def boxed(rngs: nnx.Rngs) -> Boxed:
    with nnx.use_eager_sharding(False):
        return Boxed(rngs)


class Odd(nnx.Module):
    """Values of NumPy, complex ones, integers, names that are numbers, nothing."""

    def __init__(self, rngs):
        self.numpy = nnx.Param(np.arange(4, dtype=np.float32))
        self.wave = nnx.Param(jnp.array([1.0 + 2.0j, 0.5]))
        self.shifts = nnx.Param(jnp.arange(4))
        self.step = Count(np.zeros([], np.int32))
        self.numbered = nnx.data(
            {3: nnx.Linear(4, 4, rngs=rngs), 1: nnx.Param(jnp.float32(2.0))}
        )
        self.none, self.empty, self.named = nnx.data(None), nnx.List(), nnx.Dict()

    def __call__(self, x):
        self.step.set_value(self.step[...] + np.int32(1))
        x = self.numbered[3](x) + self.numpy[...][None] * self.numbered[1][...]
        return x + self.shifts[...][None].astype(x.dtype), self.wave[...] * 2.0j


@nnx.dataclass
class Pair(nnx.Pytree):
    """A node of the graph that is no module."""

    scale: nnx.Param
    count: Count
    label: str = nnx.static(default="a")


class Nodes(nnx.Module):
    """Nodes of other kinds: of NNX, dataclasses, tuples."""

    def __init__(self, rngs):
        self.pair = Pair(nnx.Param(rngs.params.normal((4,))), Count(jnp.zeros([])))
        make = lambda: nnx.Param(rngs.params.normal((4,)))
        self.span = nnx.data(Span(make(), make()))
        self.row = nnx.data((make(), {"shift": make()}))

    def __call__(self, x):
        self.pair.count[...] += 1.0
        x = x * self.pair.scale[...][None] + self.pair.count[...]
        x = x * self.span.left[...][None] + self.span.right[...][None]
        return x * self.row[0][...][None] + self.row[1]["shift"][...][None]


class Gives(nnx.Module):
    """Gives its Variables out, and takes them."""

    def __init__(self, rngs):
        self.w = nnx.Param(rngs.params.normal((4,)), note="a")
        self.count = Count(jnp.zeros([]))

    def __call__(self, x):
        self.count[...] += 1.0
        return x * self.w[None], {"w": self.w, "count": self.count}


class Grows(nnx.Module):
    """Makes modules in a call, and other streams, which end with it."""

    def __init__(self, rngs):
        self.rngs = rngs
        self.scale = nnx.Param(jnp.ones([]))

    def __call__(self, x):
        layer = nnx.Linear(4, 4, rngs=self.rngs)
        self.rngs = self.rngs.fork()
        return layer(x) * self.scale[...] + self.rngs.dropout.normal(x.shape)


# Keys and what is sown.


class Noise(nnx.Module):
    """Keeps the streams that it was given, beside two of dropout."""

    def __init__(self, rngs):
        self.rngs = rngs
        self.layer = nnx.Linear(4, 4, rngs=rngs)
        self.one = nnx.Dropout(0.5, rngs=rngs)
        self.two = nnx.Dropout(0.3, rng_collection="noise", rngs=rngs)

    def __call__(self, x, deterministic=False):
        x = self.one(self.layer(x), deterministic=deterministic)
        x = self.two(x, deterministic=deterministic)
        if deterministic:
            return x
        x += jax.random.normal(self.rngs.noise(), x.shape)
        return x + self.rngs.noise.normal(x.shape) + self.rngs.unknown.normal(x.shape)


class Sow(nnx.Module):
    """Sows here and in a child, beside kept state."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)

    def __call__(self, x):
        x = self.norm(x)
        self.sow(nnx.Intermediate, "h", x)
        add = {"init_fn": lambda: jnp.zeros([]), "reduce_fn": lambda a, b: a + b}
        for _ in range(2):
            self.sow(nnx.Intermediate, "sum", x.sum(), **add)
        return self.attention(x, sow_weights=True)


class Sums(nnx.Module):
    """Sows into a Variable that it keeps, here and in a child."""

    def __init__(self, inner=None):
        self.total = Count(jnp.zeros([]))
        self.inner = nnx.data(inner)

    def __call__(self, x):
        add = {"init_fn": lambda: jnp.zeros([]), "reduce_fn": lambda a, b: a + b}
        self.sow(Count, "total", x.sum(), **add)
        return x if self.inner is None else self.inner(self.inner(x * 2.0))


class Coder(nnx.Module):
    """Several methods, one of which uses the others."""

    def __init__(self, rngs):
        self.encoder = nnx.Linear(4, 3, rngs=rngs)
        self.decoder = nnx.Linear(3, 4, rngs=rngs)

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def __call__(self, x):
        return self.decode(self.encode(x))


HELD = [
    case("nnx_deep", Deep),
    case("nnx_shared", Shared),
    case("nnx_circle", Circle),
    case(
        "nnx_static",
        Static,
        values="outputs are no arrays",
        skip={"remat_does_not_matter": "JAX rematerialises no function of a text"},
    ),
    case("nnx_frozen", Frozen),
    case("nnx_values", Values, values="leaves are trees"),
    case(
        "nnx_numbers",
        lambda rngs: Numbers(),
        values="leaves are no arrays",
        skip={
            "remat_does_not_matter": "Haiku makes arrays of numbers there",
            "state_keeps_its_structure": "a number is an array once it is compiled",
        },
    ),
    case("nnx_state", State, values="leaves are trees and keys"),
    case("nnx_odd", Odd, values="leaves are of NumPy"),
    case("nnx_nodes", Nodes),
    case("nnx_gives", Gives),
    case("nnx_grows", Grows, streams=("params", "dropout", "default")),
    case(
        "nnx_keeps_rngs",
        Noise,
        train={"deterministic": False},
        test={"deterministic": True},
        bridge=partial(FlaxModule, keep_rngs=True),
        values="leaves are keys",
    ),
    case("nnx_only_state", lambda rngs: OnlyState()),
    case("nnx_nothing", lambda rngs: Nothing()),
    case("nnx_metrics", Metrics, values="counts over several steps"),
    case("nnx_boxes", boxed),
    case(
        "nnx_noise",
        Noise,
        **{**DROP, "streams": ("dropout", "noise", "default")},
    ),
    case("nnx_sow", Sow, SEQUENCE),
    case("nnx_sums", lambda rngs: Sums(Sums())),
    case("nnx_methods", Coder),
    case("nnx_method_by_name", Coder, method="encode"),
    case("nnx_method", Coder, (array(2, 3),), method=Coder.decode),
    case("nnx_method_function", Coder, method=lambda m, x: m.encode(x) * 2.0),
]
CASES = [*LAYERS, *HELD]
