"""The cases: linen modules, each for one thing that a module can do.

To add one, append a `Case`; every law in `laws.py` then holds for it, or is named in
`skip` with the reason.
"""

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from hk_bridge import FlaxModule

KEY = jax.random.key(0)


def array(*shape: int, seed: int = 0, dtype: Any = jnp.float32) -> jax.Array:
    """Some input, neither symmetric nor zero."""
    return jax.random.normal(jax.random.fold_in(KEY, seed), shape, dtype)


@dataclasses.dataclass(frozen=True)
class Case:
    """A module and how to call it.

    Attributes:
      name: of the test.
      make: builds the module.
      args: positional inputs.
      train: keyword inputs at init and in training.
      test: keyword inputs in evaluation.
      method: what to call.
      streams: that a call in training asks for, besides `params` at init.
      sown: collections that live for one call.
      skip: laws that do not hold, by name, and why.
      values: why equal programs are not enough, and values are compared as well.
      eager: JAX cannot trace it, natively either, so only values are compared.
      bridge: what takes the module into Haiku, and gives what is called.
    """

    name: str
    make: Callable[[], nn.Module]
    args: tuple[Any, ...] = (array(2, 4),)
    train: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    test: Mapping[str, Any] | None = None
    method: Any = None
    streams: tuple[str, ...] = ()
    sown: tuple[str, ...] = ()
    skip: Mapping[str, str] = dataclasses.field(default_factory=dict)
    values: str = ""
    eager: bool = False
    bridge: Callable[..., Any] = FlaxModule

    def __str__(self) -> str:
        return self.name

    @property
    def compiles(self) -> bool:
        """Whether JAX compiles it: arrays go in and come out, and none is looked at."""
        return not self.eager and "state_keeps_its_structure" not in self.skip

    def rngs(self, seed: int, init: bool = False) -> dict[str, jax.Array]:
        streams = ("params", *self.streams) if init else self.streams
        return {
            s: jax.random.fold_in(jax.random.key(seed), i)
            for i, s in enumerate(streams)
        }


# Where parameters live.


class Leaves(nn.Module):
    """Parameters at the top of the tree."""

    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.normal(), (x.shape[-1],))
        return x * scale[None] + self.param(
            "bias", nn.initializers.ones, (1, x.shape[-1])
        )


class Nested(nn.Module):
    depth: int = 2

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3)(x)
        return Nested(self.depth - 1)(x) if self.depth else x


class SharedByCall(nn.Module):
    """One submodule called twice."""

    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(x.shape[-1], name="shared")
        return layer(layer(x))


class SharedByField(nn.Module):
    """One submodule given to two parents."""

    def setup(self):
        self.shared = nn.Dense(4)
        self.one = nn.Sequential([self.shared, nn.relu])
        self.two = nn.Sequential([nn.tanh, self.shared])

    def __call__(self, x):
        return self.two(self.one(x))


class Setup(nn.Module):
    def setup(self):
        self.layers = [nn.Dense(4), nn.Dense(3)]
        self.heads = {"a": nn.Dense(2), "b": nn.Dense(2)}

    def __call__(self, x):
        for layer in self.layers:
            x = nn.relu(layer(x))
        return {key: head(x) for key, head in self.heads.items()}


class Field(nn.Module):
    inner: nn.Module

    @nn.compact
    def __call__(self, x):
        return self.inner(nn.Dense(4)(x))


class Odd(nn.Module):
    """Names that Haiku would refuse or read otherwise."""

    @nn.compact
    def __call__(self, x):
        for name in ("0", "block-1", "a/b", "~", "~init", "%2F", " ", "é", "%", ""):
            x = nn.Dense(4, name=name)(x)
        shift = self.param("w/x", nn.initializers.ones, (1,))
        return x + shift[None] + self.param("~w", nn.initializers.ones, (1,))[None]


class NoParams(nn.Module):
    def __call__(self, x):
        return jnp.sin(x)


class Autoencoder(nn.Module):
    """Several methods, one of which uses the others."""

    def setup(self):
        self.encoder = nn.Dense(3)
        self.decoder = nn.Dense(4)

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def __call__(self, x):
        return self.decode(self.encode(x))


# Values of every type.


@flax.struct.dataclass
class Span:
    left: jax.Array
    right: jax.Array


class Values(nn.Module):
    """Parameters that are trees."""

    @nn.compact
    def __call__(self, x):
        n = x.shape[-1]
        normal = nn.initializers.normal()
        tuple_ = self.param("tuple", lambda key: (normal(key, (n,)), jnp.ones([n])))
        dict_ = self.param("dict", lambda key: {"w": {"v": normal(key, (n,))}, "e": {}})
        pair = self.param("pair", lambda key: Span(normal(key, (n,)), jnp.ones([n])))
        self.param("empty", lambda key: {})
        return x + (tuple_[0] + dict_["w"]["v"] + pair.left)[None]


class Variables(nn.Module):
    """State of every type, which changes with each call."""

    @nn.compact
    def __call__(self, x):
        count = self.variable("stats", "count", lambda: jnp.zeros([], jnp.int32))
        flag = self.variable("stats", "flag", lambda: jnp.zeros([], bool))
        pair = self.variable("stats", "pair", lambda: Span(jnp.zeros([]), jnp.ones([])))
        carry = self.variable("stats", "carry", lambda: (jnp.zeros([]), [jnp.ones([])]))
        tree = self.variable("other", "tree", lambda: {"a": jnp.zeros([]), "b": {}})
        key = self.variable("keys", "key", lambda: jax.random.key(7))
        none = self.variable("stats", "none", lambda: None)
        if not self.is_initializing():
            count.value += 1
            flag.value = ~flag.value
            pair.value = pair.value.replace(left=pair.value.left + 1.0)
            carry.value = (carry.value[0] + 1.0, [carry.value[1][0] * 2.0])
            tree.value = {"a": tree.value["a"] + 1.0, "b": {}}
            key.value = jax.random.fold_in(key.value, 1)
        assert none.value is None
        noise = jax.random.normal(key.value, x.shape)
        return x + noise + (pair.value.left + carry.value[0] + tree.value["a"])


class SamePath(nn.Module):
    """One path and leaf name in several collections."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.ones, (1,))
        a = self.variable("a", "w", lambda: jnp.zeros([]))
        b = self.variable("b", "w", lambda: jnp.ones([]))
        if not self.is_initializing():
            a.value += 1.0
            b.value *= 2.0
        return x * w[None] + a.value + b.value


class ByHand(nn.Module):
    """`put_variable` without `variable`."""

    @nn.compact
    def __call__(self, x):
        if not self.has_variable("memory", "last"):
            self.put_variable("memory", "last", jnp.zeros_like(x))
        last = self.get_variable("memory", "last")
        self.put_variable("memory", "last", x)
        return nn.Dense(3)(x + last)


# Streams.


class Noise(nn.Module):
    """A stream of its own name, beside dropout."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dropout(0.5, deterministic=not train)(nn.Dense(8)(x))
        if train:
            x += jax.random.normal(self.make_rng("noise"), x.shape)
        return nn.Dropout(0.3, rng_collection="late")(x, deterministic=not train)


# State.


class Norm(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dense(4)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return nn.Dense(2)(nn.relu(x))


class Decode(nn.Module):
    """A cache that is made at full length and then filled step by step."""

    @nn.compact
    def __call__(self, x):
        x = x if self.is_initializing() else x[:, :1]
        return nn.MultiHeadDotProductAttention(num_heads=2, decode=True)(x)


# Sown values.


class Sow(nn.Module):
    """Sows under several names, with several ways of reducing, beside kept state."""

    @nn.compact
    def __call__(self, x, train=True):
        x = Norm()(x, train)
        self.sow("intermediates", "h", x)
        self.sow("losses", "l2", jnp.sum(x**2), jnp.add, lambda: jnp.zeros([]))
        self.sow("last", "h", x, lambda _, new: new, lambda: None)
        return nn.Dense(2)(self.perturb("h", x))


class SowInScan(nn.Module):
    @nn.compact
    def __call__(self, x):
        class Body(nn.Module):
            @nn.compact
            def __call__(self, carry, _):
                carry = nn.Dense(4)(carry)
                self.sow("trace", "h", carry)
                return carry, None

        scan = nn.scan(
            Body, {"params": 0, "trace": 0}, split_rngs={"params": True}, length=3
        )
        return scan()(x, None)[0]


# Lifted transforms.


class Scan(nn.Module):
    """Stacked parameters, carried state, broadcast dropout."""

    @nn.compact
    def __call__(self, x, train=True):
        class Body(nn.Module):
            train: bool

            @nn.compact
            def __call__(self, carry, _):
                carry = nn.Dense(4)(carry)
                carry = nn.BatchNorm(use_running_average=not self.train)(carry)
                return nn.Dropout(0.5, deterministic=not self.train)(
                    carry
                ), carry.mean()

        scan = nn.scan(
            Body,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
            length=3,
        )
        return scan(train)(x, None)


class CarriedState(nn.Module):
    @nn.compact
    def __call__(self, x):
        count = self.variable("count", "n", lambda: jnp.ones([]))

        def body(module, carry, _):
            if not module.is_initializing():
                count = module.get_variable("count", "n")
                module.put_variable("count", "n", count + 1.0)
            return nn.Dense(4, parent=module)(carry), None

        scan = nn.scan(
            body,
            variable_broadcast="params",
            variable_carry="count",
            split_rngs={"params": False},
            length=2,
        )
        return scan(self, x, None)[0] * count.value


class Vmap(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        vmap = nn.vmap(
            Norm,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            in_axes=(0, None),
        )
        return vmap()(jnp.stack([x, x + 1.0]), train)


class Remat(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.remat(nn.Dense)(4)(x)
        x = nn.remat(Norm, static_argnums=(2,))()(x, train)
        return nn.remat(nn.Dropout)(0.5, deterministic=not train)(x)


class RematScan(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.remat_scan(nn.Dense, lengths=(2, 2))(4)(x)


class Jit(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.jit(nn.Dense)(3)(nn.jit(SharedByCall)()(x))


class WhileLoop(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(4)
        self.variable("state", "i", lambda: jnp.zeros([], jnp.int32))

        def cond(module, carry):
            return module.get_variable("state", "i") < 3

        def body(module, carry):
            i = module.get_variable("state", "i")
            module.put_variable("state", "i", i + 1)
            return layer(carry)

        if self.is_initializing():
            return layer(x)
        self.put_variable("state", "i", jnp.zeros([], jnp.int32))
        return nn.while_loop(cond, body, self, x, "state")


class Branches(nn.Module):
    @nn.compact
    def __call__(self, x):
        one, two = nn.Dense(3, name="one"), nn.Dense(3, name="two")
        if self.is_initializing():
            return one(x) + two(x)
        first = x[0, 0] > 0.0
        y = nn.cond(first, lambda m, x: one(x), lambda m, x: two(x), self, x)
        branches = [
            lambda m, x: one(x),
            lambda m, x: two(x),
            lambda m, x: one(x) + two(x),
        ]
        return y + nn.switch(jnp.int32(2), branches, self, x)


class CustomVjp(nn.Module):
    @nn.compact
    def __call__(self, x):
        def forward(module, x):
            return nn.vjp(lambda module, x: module(x), module, x)

        def backward(vjp, cotangent):
            params, inputs = vjp(cotangent)
            return jax.tree.map(jnp.sign, params), inputs

        sign_grad = nn.custom_vjp(lambda m, x: m(x), forward, backward)
        return sign_grad(nn.Dense(3), x)


class Gradients(nn.Module):
    @nn.compact
    def __call__(self, x):
        layer = nn.Dense(3, name="layer")
        y = layer(x)
        _, tangent = nn.jvp(lambda m, x: m(x), layer, (x,), (jnp.ones_like(x),), {})
        value, grads = nn.value_and_grad(lambda m, x: jnp.sum(m(x) ** 2), layer, x)
        return y + tangent, value, grads


class Transposed(nn.Module):
    """Tied weights: the decoder is the encoder's transpose."""

    @nn.compact
    def __call__(self, x):
        encoder = nn.Dense(3, use_bias=False)
        y = encoder(x)

        def transpose(variables):
            return jax.tree.map(lambda w: w.T, variables)

        decoder = nn.map_variables(nn.Dense, "params", transpose, transpose, init=True)
        return y, decoder(3, use_bias=False)(x)


# Metadata.


class Boxes(nn.Module):
    """Partitioned leaves, plain and with a new axis."""

    @nn.compact
    def __call__(self, x):
        init = nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out"))
        x = nn.Dense(4, kernel_init=init)(x)
        logical = nn.with_logical_partitioning(
            nn.initializers.lecun_normal(), ("a", "b")
        )
        count = self.variable(
            "stats", "count", nn.with_partitioning(jnp.zeros, (None,)), (1,)
        )
        if not self.is_initializing():
            count.value += 1.0
        vmap = nn.vmap(
            nn.Dense,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=0,
            axis_size=2,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        return vmap(4, kernel_init=logical)(x) + count.value[None, None]


class Half(nn.Module):
    """Leaves of other types than float32."""

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4, param_dtype=jnp.bfloat16, dtype=jnp.bfloat16)(x)
        table = self.param("table", lambda key: jnp.arange(4, dtype=jnp.int32))
        return x + table.astype(jnp.bfloat16)[None]


class Data(nn.Module):
    """Arguments and outputs that are no arrays."""

    @nn.compact
    def __call__(self, batch, *, scale, mode, none=None):
        assert none is None
        y = nn.Dense(3)(batch["x"] * scale)
        return {"y": y if mode == "plain" else -y, "none": None, "mode": 1}


class Eager(nn.Module):
    """Branches on the value of an array."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x if x.sum() > 0.0 else -x)


class NoArrays(nn.Module):
    """Variables that JAX cannot trace, and an output that is none either."""

    @nn.compact
    def __call__(self, x):
        text = self.variable("notes", "text", lambda: "a")
        self.variable("notes", "set", lambda: frozenset({1}))
        return nn.Dense(3)(x), text.value * 2


EVAL = {"train": {"train": True}, "test": {"train": False}}


class SowOfChild(nn.Module):
    """Sows through submodules that are not running."""

    @nn.compact
    def __call__(self, x):
        child = nn.Dense(3, name="child")
        add = {"init_fn": lambda: jnp.zeros([]), "reduce_fn": lambda a, b: a + b}
        child.sow("losses", "size", (x**2).sum(), **add)
        x = child.perturb("input", x, "gradients")
        y = child(x)
        child.sow("losses", "size", (y**2).sum(), **add)
        return y


CASES = [
    Case("leaves", Leaves),
    Case("nested", Nested),
    Case("shared_by_call", SharedByCall),
    Case("shared_by_field", SharedByField),
    Case("setup", Setup),
    Case("field", lambda: Field(nn.Dense(2))),
    Case(
        "field_named",
        lambda: Field(nn.Dense(2, name="named")),
        skip={"sharing_does_not_matter": "a module has no two submodules of one name"},
    ),
    Case("odd_names", Odd, values="the names are those that could be mixed up"),
    Case("no_params", NoParams),
    Case("methods", Autoencoder),
    Case("method_by_name", Autoencoder, method="encode"),
    Case("method", Autoencoder, (array(2, 3),), method=Autoencoder.decode),
    Case("method_function", Autoencoder, method=lambda m, x: m.encode(x) * 2.0),
    Case("values", Values, values="leaves are trees"),
    Case("variables", Variables, values="leaves are trees, keys and None"),
    Case("eager", Eager, values="it branches on the value of an array", eager=True),
    Case(
        "no_arrays",
        NoArrays,
        values="leaves are no arrays",
        skip={
            "state_keeps_its_structure": "JAX compiles no function of a text",
            "remat_does_not_matter": "and rematerialises none",
        },
    ),
    Case("same_path", SamePath),
    Case("by_hand", ByHand),
    Case(
        "dropout",
        lambda: nn.Dropout(0.5),
        streams=("dropout",),
        train={"deterministic": False},
        test={"deterministic": True},
        values="masks are made outside of a compiled program",
    ),
    Case("streams", Noise, streams=("dropout", "noise", "late"), **EVAL),
    Case("batch_norm", Norm, **EVAL, values="statistics over several steps"),
    Case(
        "decode_cache",
        Decode,
        (array(2, 6, 4),),
        skip={"calls_agree_in_init": "a second call would decode the full length"},
        values="a cache over several steps",
    ),
    Case("sow", Sow, sown=("losses", "last", "perturbations"), **EVAL),
    Case("sow_of_child", SowOfChild, sown=("losses", "gradients")),
    Case("sow_of_lifted", nn.remat(SowOfChild), sown=("losses", "gradients")),
    Case("sow_in_scan", SowInScan, sown=("trace",)),
    Case("scan", Scan, streams=("dropout",), **EVAL),
    Case("carried_state", CarriedState),
    Case("vmap", Vmap, **EVAL),
    Case("remat", Remat, streams=("dropout",), **EVAL),
    Case("remat_scan", RematScan),
    Case("jit", Jit, values="its trace is kept from call to call"),
    Case(
        "while_loop",
        WhileLoop,
        skip={"same_grad": "JAX has no reverse-mode gradient of a while loop"},
    ),
    Case("branches", Branches),
    Case("custom_vjp", CustomVjp, values="a rule of differentiation is a function"),
    Case("gradients", Gradients),
    Case(
        "map_variables",
        Transposed,
        skip={
            "calls_agree_in_init": "init=True makes the parameters at every init call"
        },
    ),
    Case("boxes", Boxes, values="leaves are boxes"),
    Case("half", Half, (array(2, 4, dtype=jnp.bfloat16),)),
    Case(
        "data",
        Data,
        ({"x": array(2, 4)},),
        {"scale": 2.0, "mode": "minus"},
        {"scale": 1.0, "mode": "plain"},
        values="outputs are no arrays",
    ),
    Case("rnn", lambda: nn.RNN(nn.LSTMCell(3), return_carry=True), (array(2, 5, 4),)),
    Case(
        "bidirectional",
        lambda: nn.Bidirectional(nn.RNN(nn.GRUCell(3)), nn.RNN(nn.GRUCell(3))),
        (array(2, 5, 4),),
    ),
    Case("group_norm", lambda: nn.GroupNorm(2), (array(2, 3, 3, 4),)),
    Case("conv", lambda: nn.Conv(4, (3, 3), strides=2), (array(2, 6, 6, 3),)),
    Case(
        "attention",
        lambda: nn.MultiHeadDotProductAttention(2),
        (array(2, 3, 4), array(2, 5, 4, seed=1)),
    ),
    Case("embed", lambda: nn.Embed(5, 3), (jnp.array([[0, 2], [4, 1]]),)),
    Case("sequential", lambda: nn.Sequential([nn.Dense(3), nn.relu, nn.LayerNorm()])),
    Case(
        "spectral_norm",
        lambda: nn.SpectralNorm(nn.Dense(3)),
        train={"update_stats": True},
        test={"update_stats": False},
    ),
    Case("weight_norm", lambda: nn.WeightNorm(nn.Dense(3))),
]
