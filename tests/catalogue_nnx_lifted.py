"""Cases of NNX whose modules are inside transforms, or hold modules of linen."""

from catalogue import array
from catalogue_nnx import DROP
from catalogue_nnx import Count
from catalogue_nnx import case
from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp


class Block(nnx.Module):
    """A layer with state and keys, for those around it."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, deterministic=False):
        x = self.norm(self.layer(x), use_running_average=deterministic)
        return self.dropout(jnp.tanh(x), deterministic=deterministic)


class Remat(nnx.Module):
    def __init__(self, rngs):
        self.block = Block(rngs)
        self.last = nnx.Linear(4, 3, rngs=rngs)

    @nnx.remat
    def inner(self, x):
        return jnp.sin(self.last(x))

    def __call__(self, x, deterministic=False):
        run = nnx.remat(lambda block, x: block(x, deterministic))
        return self.inner(run(self.block, x))


class Jit(nnx.Module):
    def __init__(self, rngs):
        self.block = Block(rngs)
        self.count = Count(jnp.zeros([], jnp.int32))

    @nnx.jit
    def inner(self, x):
        self.count[...] += 1
        return self.block(x)

    def __call__(self, x, deterministic=False):
        run = nnx.jit(lambda block, x: block(x, deterministic))
        y = run(self.block, x)
        return y if deterministic else y + self.inner(x)


class Vmap(nnx.Module):
    """An ensemble, made by vmap and run by vmap."""

    def __init__(self, rngs):
        make = nnx.split_rngs(splits=3)(nnx.vmap(Block))
        self.blocks = make(rngs)

    def __call__(self, x, deterministic=False):
        run = nnx.vmap(lambda block, x: block(x, deterministic), in_axes=(0, None))
        return run(self.blocks, x)


class Scan(nnx.Module):
    """Stacked layers, each with weights, statistics and keys of its own."""

    def __init__(self, rngs):
        self.layers = nnx.split_rngs(splits=3)(nnx.vmap(Block))(rngs)

    def __call__(self, x, deterministic=False):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=(nnx.Carry, 0))
        def run(block, x):
            x = block(x, deterministic)
            return x, x.mean()

        return run(self.layers, x)


class CarriedState(nnx.Module):
    """One layer at each step of a scan, whose state is carried."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 4, rngs=rngs)
        self.count = Count(jnp.ones([]))

    def __call__(self, x):
        axes = nnx.StateAxes({nnx.Param: None, ...: nnx.Carry})

        @nnx.scan(in_axes=(axes, nnx.Carry), out_axes=nnx.Carry, length=2)
        def run(module, x):
            module.count[...] += 1.0
            return module.layer(x) * module.count[...]

        return run(self, x)


class SplitKeys(nnx.Module):
    """A scan over layers that share their dropout, whose stream is split for it."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=2, only="params")
        @nnx.vmap(in_axes=(nnx.StateAxes({"params": 0, ...: None}),))
        def make(rngs):
            return nnx.Linear(4, 4, rngs=rngs)

        self.layers = make(rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        @nnx.split_rngs(splits=2)
        @nnx.scan(in_axes=(0, 0, nnx.Carry), out_axes=nnx.Carry)
        def run(dropout, layer, x):
            return dropout(layer(x))

        return run(self.dropout, self.layers, x)


class Branches(nnx.Module):
    def __init__(self, rngs):
        self.one = nnx.Linear(4, 3, rngs=rngs)
        self.two = nnx.Linear(4, 3, rngs=rngs)
        self.count = Count(jnp.zeros([]))

    def __call__(self, x):
        def first(module, x):
            module.count[...] += 1.0
            return module.one(x)

        second = lambda module, x: module.two(x)
        y = nnx.cond(x[0, 0] > 0.0, first, second, self, x)
        return y + nnx.switch(jnp.int32(1), [first, second], self, x)


class Loops(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 4, rngs=rngs)
        self.count = Count(jnp.zeros([], jnp.int32))

    def __call__(self, x):
        def more(carry):
            return carry[0].count[...] % 3 < 2

        def step(carry):
            module, x = carry
            module.count[...] += 1
            return module, module.layer(x)

        _, x = nnx.while_loop(more, step, (self, x))
        body = lambda i, carry: step(carry)
        _, x = nnx.fori_loop(0, 2, body, (self, x))
        return x


class Gradients(nnx.Module):
    """Differentiates itself."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, rngs=rngs)

    def __call__(self, x):
        def loss(layer, norm, x):
            return (norm(layer(x)) ** 2).mean()

        value, grads = nnx.value_and_grad(loss)(self.layer, self.norm, x)
        return value, nnx.to_pure_dict(grads)


class CustomVjp(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        @nnx.custom_vjp
        def run(layer, x):
            return layer(x)

        def forward(layer, x):
            return run(layer, x), (x,)

        def backward(residuals, tangents):
            (inputs,), (updates, cotangent) = residuals, tangents
            grads = jax.tree.map(jnp.ones_like, updates[0])
            return grads, jnp.ones_like(inputs) * cotangent.sum()

        run.defvjp(forward, backward)
        return run(self.layer, x)


class Parts(nnx.Module):
    """Gradients by a part of its Variables, and checks of what runs."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)
        self.lora = nnx.LoRA(3, 2, 3, rngs=rngs)
        self.count = Count(jnp.zeros([], jnp.int32))

    def __call__(self, x):
        def loss(module, x):
            module.count[...] += 1
            return (module.lora(module.layer(x)) ** 2).sum()

        by = nnx.DiffState(0, nnx.LoRAParam)
        grads = nnx.grad(loss, argnums=by)(self, x)
        error, y = nnx.checkify(lambda module, x: module.layer(x))(self, x)
        return nnx.to_pure_dict(grads), y


class Tangents(nnx.Module):
    """Pushes forward and pulls back through a part of itself."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        graphdef, state = nnx.split(self.layer)
        ones = nnx.merge(graphdef, jax.tree.map(jnp.ones_like, state))
        run = lambda layer, x: layer(x)
        pure = {"graph_updates": False}
        y, tangent = nnx.jvp(run, (self.layer, x), (ones, x), **pure)
        _, pull = nnx.vjp(run, self.layer, x, **pure)
        return y, tangent, pull(y)[1]


class Sharded(nnx.Module):
    """A layer that runs on a part of the batch on each device."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)
        self.norm = nnx.BatchNorm(3, axis_name="x", rngs=rngs)

    def __call__(self, x):
        spec = jax.sharding.PartitionSpec
        auto = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((2,), ("x",), axis_types=auto, devices=jax.devices()[:2])
        specs = {"in_specs": (spec(), spec("x")), "out_specs": spec("x")}
        run = lambda module, x: module.norm(module.layer(x))
        return nnx.shard_map(run, mesh=mesh, **specs)(self, x)


class Stacked(nnx.Module):
    """A scanned stack whose Variables say how they are sharded."""

    def __init__(self, rngs):
        init = nnx.with_partitioning(nnx.initializers.lecun_normal(), ("in", "out"))
        axes = {"transform_metadata": {nnx.PARTITION_NAME: "layers"}}

        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0, **axes)
        def make(rngs):
            return nnx.Linear(4, 4, kernel_init=init, rngs=rngs)

        self.layers = make(rngs)
        self.axes = nnx.static(axes)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry, **self.axes)
        def run(layer, x):
            return nnx.relu(layer(x))

        return run(self.layers, x)


def stacked(rngs: nnx.Rngs) -> Stacked:
    with nnx.use_eager_sharding(False):
        return Stacked(rngs)


class Functional(nnx.Module):
    """Splits and merges a part of itself, for transforms of JAX."""

    def __init__(self, rngs):
        make = nnx.vmap(lambda rngs: nnx.Linear(4, 4, rngs=rngs))
        self.blocks = nnx.split_rngs(splits=3)(make)(rngs)
        self.block = Block(rngs)

    def __call__(self, x):
        graphdef, state = nnx.split(self.blocks)
        step = lambda x, state: (nnx.merge(graphdef, state)(x), None)
        x, _ = jax.lax.scan(step, x, state)
        copy = nnx.clone(self.block)
        y = copy(x)
        nnx.update(self.block, nnx.state(copy, nnx.BatchStat))
        return y


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=True)(nn.Dense(4)(x))
        return nn.Dropout(0.5, deterministic=False)(x)


class Bridge(nnx.Module):
    """Holds a module of linen."""

    def __init__(self, rngs):
        linen = nnx.bridge.ToNNX(Linen(), rngs=rngs)
        self.linen = linen.lazy_init(jnp.ones([2, 4]))
        self.layer = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.layer(self.linen(x))


NO_GRADIENT = {"same_grad": "JAX has no reverse-mode gradient of a while loop"}
CASES = [
    case("nnx_remat", Remat, **DROP),
    case("nnx_jit", Jit, **DROP, values="its trace is kept from call to call"),
    case("nnx_vmap", Vmap, **DROP),
    case("nnx_scan", Scan, **DROP, values="keys are split"),
    case("nnx_carried_state", CarriedState),
    case("nnx_split_keys", SplitKeys, streams=("dropout",)),
    case("nnx_branches", Branches),
    case("nnx_loops", Loops, skip=NO_GRADIENT),
    case("nnx_gradients", Gradients),
    case("nnx_custom_vjp", CustomVjp),
    case("nnx_parts", Parts),
    case("nnx_sharded", Sharded),
    case("nnx_stacked", stacked),
    *([case("nnx_tangents", Tangents)] if hasattr(nnx, "jvp") else []),
    case("nnx_functional", Functional, streams=("dropout",)),
    case(
        "nnx_to_nnx",
        Bridge,
        streams=("default", "dropout", "params", "carry", "noise"),
    ),
    case(
        "nnx_to_nnx_dense",
        lambda rngs: nnx.bridge.ToNNX(nn.Dense(3), rngs=rngs).lazy_init(array(2, 4)),
        streams=("default", "dropout", "params", "carry", "noise"),
    ),
]
