"""`partition_specs`, meshes and named axes: nothing of Flax's is lost on the way."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
import contextlib
import dataclasses
import functools
import re

from catalogue import CASES
from catalogue import array
from flax import nnx
from flax.errors import ScopeCollectionNotFound
import flax.linen as nn
from flax.linen import spmd
import haiku as hk
import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from laws import network
import numpy as np
import optax
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge import _boxes
from hk_bridge import sharding
from hk_bridge._proof.laws import apply_programs
from hk_bridge._proof.laws import assert_same
from hk_bridge._proof.laws import same_program
from hk_bridge.sharding import named_shardings
from hk_bridge.sharding import partition_specs
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(4, 8)
RULES = [("batch", "data"), ("mlp", "model"), ("heads", "model"), ("embed", None)]
logical = nn.with_logical_partitioning
partitioned = nn.with_partitioning
INIT = nn.initializers.lecun_normal()


def make_mesh(data, model):
    return jax.make_mesh(
        (data, model), ("data", "model"), axis_types=(AxisType.Auto,) * 2,
        devices=jax.devices()[: data * model],
    )  # fmt: skip


# The specs.


class Mlp(nn.Module):
    """Two annotated layers and a bias without annotation."""

    rules: tuple = None

    @nn.compact
    def __call__(self, x, _=None):
        up = logical(INIT, ("embed", "mlp"), rules=self.rules)
        y = nn.gelu(nn.Dense(16, kernel_init=up)(x))
        y = nn.with_logical_constraint(y, ("batch", "mlp"))
        down = logical(INIT, ("mlp", "embed"), rules=self.rules)
        return x + nn.Dense(8, kernel_init=down)(y), None


class Layers(nn.Module):
    """Layers under a lifted transform, which adds an axis to the boxes."""

    lift: str = "scan"

    @nn.compact
    def __call__(self, x):
        options = {
            "variable_axes": {"params": 0},
            "split_rngs": {"params": True},
            "metadata_params": {nn.PARTITION_NAME: "layers"},
        }
        if self.lift == "scan":
            return nn.scan(Mlp, length=3, **options)(name="layers")(x, None)[0]
        vmapped = nn.vmap(Mlp, in_axes=(None, None), out_axes=0, axis_size=3, **options)
        return vmapped(name="layers")(x, None)[0].sum(0)


class State(nn.Module):
    """Boxes in state, around a dict, a tuple and each other."""

    @nn.compact
    def __call__(self, x):
        zeros = nn.initializers.zeros
        ones = partitioned(lambda: jnp.ones([8]), ("model",))
        total = self.variable("stats", "mean", ones).value
        pair = partitioned(lambda: (jnp.ones([8]), jnp.ones([8, 2])), ("data",))
        total += self.variable("stats", "pair", pair).value[0]
        total *= self.variable("stats", "number", partitioned(lambda: 2.0, ())).value
        tree = partitioned(lambda key: {"a/b": zeros(key, (8,))}, ("model",))
        total += self.param("tree", tree)["a/b"]
        twice = partitioned(partitioned(zeros, ("model",)), ("data",))
        total += nn.meta.unbox(self.param("twice", twice, (8,)))
        return x + total[None]


def dense(*names):
    return nn.Dense(4, kernel_init=partitioned(INIT, names))


ANNOTATED = {
    "partitioned": lambda: dense("data", "model"),
    "tuple_of_axes": lambda: dense(("data", "model"), None),
    "logical": Mlp,
    "own_rules": lambda: Mlp(rules=(("embed", "data"), ("mlp", None))),
    "scan": Layers,
    "vmap": lambda: Layers("vmap"),
    "remat": lambda: nn.remat(Mlp)(),
    "jit": lambda: nn.jit(Mlp)(),
    "attention": lambda: nn.MultiHeadDotProductAttention(
        2, kernel_init=logical(INIT, ("embed", "heads", "kv"))
    ),
    "state": State,
}


def flax_specs(module, rules):
    """What Flax says, in Haiku's trees."""
    boxed = jax.eval_shape(module.init, KEY, X)

    def spec(leaf):
        if not isinstance(leaf, nn.Partitioned):
            return P()
        own = rules if getattr(leaf, "rules", None) is None else leaf.rules
        is_logical = isinstance(leaf, nn.LogicallyPartitioned) and own
        spec = leaf.get_partition_spec()
        spec = spmd.logical_to_mesh_axes(tuple(spec), own) if is_logical else spec
        return jax.tree.map(lambda _: spec, nn.unbox(leaf))

    specs = jax.tree.map(spec, boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned))
    return hk_bridge.to_haiku(specs, name="net")


@pytest.mark.parametrize("rules", [(), RULES], ids=["no_rules", "rules"])
@pytest.mark.parametrize("name", ANNOTATED)
def test_specs_are_flaxs(name, rules):
    module = ANNOTATED[name]()
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    with nn.logical_axis_rules(rules):
        specs = partition_specs(f.init, KEY, X)
    assert specs == flax_specs(module, rules)
    assert any(spec != P() for spec in leaves(specs))


def leaves(specs):
    return jax.tree.leaves(specs, is_leaf=lambda x: isinstance(x, P))


@pytest.mark.parametrize("case", [c for c in CASES if c.compiles], ids=str)
def test_specs_have_the_shape_of_params_and_state(case):
    f = hk.transform_with_state(network(case))
    made = jax.eval_shape(lambda: f.init(KEY, case.train))
    specs = partition_specs(f.init, KEY, case.train)
    like = jax.tree.map(lambda _: P(), made)
    assert jax.tree.structure(specs, is_leaf=lambda x: isinstance(x, P)) == (
        jax.tree.structure(like, is_leaf=lambda x: isinstance(x, P))
    )
    assert case.name == "boxes" or leaves(specs) == leaves(like)


def test_nnx_annotations():
    kernel_init = nnx.with_partitioning(INIT, ("embed", "mlp"))
    module = nnx.bridge.to_linen(nnx.Linear, 8, 16, kernel_init=kernel_init)
    f = hk.transform(lambda x: FlaxModule(module, name="net")(x))
    mesh = jax.make_mesh((2,), ("model",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh), nn.logical_axis_rules([("mlp", "model"), ("embed", None)]):
        params, state = partition_specs(f.init, KEY, X)
    assert params["net"] == {"kernel": P(None, "model"), "bias": P()}
    assert state == {}


def test_haikus_own_modules_and_plain_transforms():
    def forward(x):
        x = hk.LayerNorm(-1, True, True)(FlaxModule(Mlp())(x)[0])
        return x + hk.get_state("count", (), init=jnp.zeros)[None, None]

    params, state = partition_specs(hk.transform_with_state(forward).init, KEY, X)
    assert params["layer_norm"] == {"scale": P(), "offset": P()}
    assert params["mlp/Dense_0"]["kernel"] == P("embed", "mlp")
    assert state == {"~": {"count": P()}}
    f = hk.transform(lambda x: hk.Linear(2)(x))
    assert partition_specs(f.init, KEY, X) == ({"linear": {"w": P(), "b": P()}}, {})


def test_axes_that_haikus_transforms_add_are_not_partitioned():
    def layers(x):
        stack = hk.experimental.layer_stack(3, name="stack")
        return stack(lambda x: FlaxModule(Mlp(), name="net")(x)[0])(x)

    (names, *_), _ = partition_specs(hk.transform(layers).init, KEY, X), None
    kernels = [b["kernel"] for name, b in names.items() if name.endswith("Dense_0")]
    assert kernels == [P(None, "embed", "mlp")]


@pytest.mark.parametrize(
    ("axis", "bias", "kernel"),
    [
        (0, P(), P(None, "mlp", "embed")),
        (1, P(), P("mlp", None, "embed")),
        (-1, P(), P("mlp", "embed")),
    ],
)
def test_axes_that_a_lifted_vmap_adds_are_not_partitioned(axis, bias, kernel):
    inner = hk.transform(lambda x: FlaxModule(Mlp(), name="net")(x)[0])

    def lifted(x):
        keys = jax.random.split(hk.next_rng_key(), 3)
        init = jax.vmap(inner.init, in_axes=(0, None), out_axes=axis)
        params = hk.lift(init, name="lifted")(keys, x)
        return jax.vmap(inner.apply, in_axes=(axis, None, None))(params, None, x)

    params, _ = partition_specs(hk.transform(lifted).init, KEY, X)
    assert params["lifted/net/Dense_1"] == {"kernel": kernel, "bias": bias}


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((4, 4), P(None, "a")),  # of equal sizes the first is new
        ((5, 6, 4), P(None, None, "a")),
        ((4, 6, 5), P("a")),
        ((5, 6), P(None, "a")),  # a creator made it larger: the last axis
        ((), P()),
    ],
)
def test_which_axes_are_new_is_told_by_the_sizes(shape, spec):
    annotation = _boxes.Annotation(P("a"), (4,))
    assert sharding._partitioned(shape, annotation) == spec


def test_placement_and_shared_modules():
    class Outer(hk.Module):
        def __init__(self):
            super().__init__(name="outer")
            self.net = FlaxModule(Mlp(), name="net")

        def __call__(self, x):
            first = self.net(x)[0]
            return self.net(first)[0]

    params, _ = partition_specs(hk.transform(lambda x: Outer()(x)).init, KEY, X)
    assert params["outer/~/net/Dense_0"]["kernel"] == P("embed", "mlp")


def test_given_variables_and_creators_keep_the_specs():
    module = Mlp()
    variables = nn.unbox(module.init(KEY, X))
    double = lambda creator, shape, dtype, init, context: (
        2 * creator(shape, dtype, init)
    )

    def forward(x):
        with hk.custom_creator(double):
            return FlaxModule(module, variables=variables, name="net")(x)[0]

    params, _ = partition_specs(hk.transform(forward).init, KEY, X)
    assert params["net/Dense_1"]["kernel"] == P("mlp", "embed")


def test_init_runs_by_shapes_alone_and_takes_any_arguments():
    huge = nn.Dense(10**6, kernel_init=partitioned(INIT, (None, "model")))

    def forward(x, train):
        assert train is True
        return FlaxModule(huge, name="net")(x)

    f = hk.transform_with_state(forward)
    x = jax.ShapeDtypeStruct((10**6, 10**6), jnp.float32)  # four terabytes
    params, _ = partition_specs(f.init, jax.random.key(0), x, train=True)
    assert params["net"]["kernel"] == P(None, "model")
    params, _ = partition_specs(f.init, 42, x, True)
    assert params["net"]["kernel"] == P(None, "model")


def test_an_init_that_was_traced_before():
    f = hk.transform(lambda x: FlaxModule(Mlp(), name="net")(x)[0])
    jitted, remat = jax.jit(f.init), jax.checkpoint(f.init)
    for init in (jitted, remat, functools.partial(jitted, KEY), jax.jit(jitted)):
        args = (X,) if isinstance(init, functools.partial) else (KEY, X)
        for _ in range(2):
            init(*args)
            params, _ = partition_specs(init, *args)
            assert params["net/Dense_0"]["kernel"] == P("embed", "mlp")


def test_a_transform_inside_that_is_not_lifted_is_not_meant():
    def boxed(x):
        return FlaxModule(dense("data", "model"), name="net")(x)

    inner = hk.transform(boxed)

    def forward(x, lift):
        init = hk.lift(inner.init, name="inner") if lift else inner.init
        params = init(hk.next_rng_key(), x)
        return inner.apply(params, None, x) + FlaxModule(nn.Dense(4), name="net")(x)

    specs, _ = partition_specs(hk.transform(forward).init, KEY, X, lift=False)
    assert specs == {"net": {"kernel": P(), "bias": P()}}
    specs, _ = partition_specs(hk.transform(forward).init, KEY, X, lift=True)
    assert specs["net"]["kernel"] == P()
    assert specs["inner/net"]["kernel"] == P("data", "model")

    def asks(x):  # inside another transform
        specs, _ = partition_specs(inner.init, KEY, x)
        return specs["net"]["kernel"]

    assert hk.transform(asks).apply({}, None, X) == P("data", "model")


def test_a_leaf_of_fewer_axes_is_not_partitioned():
    flat = lambda creator, shape, dtype, init, _: creator(shape, dtype, init).reshape(
        -1
    )
    back = lambda getter, value, context: getter(value).reshape(8, -1)
    module = nn.Dense(4, use_bias=False, kernel_init=partitioned(INIT, (None, "model")))

    def forward(x):
        with hk.custom_creator(flat), hk.custom_getter(back):
            return FlaxModule(module, name="net")(x)

    params, _ = partition_specs(hk.transform(forward).init, KEY, X)
    assert params["net"]["kernel"] == P()


@pytest.mark.parametrize(
    "init",
    [
        hk.transform(lambda x: x),
        Mlp().init,
        dense("data", "model").init,
        lambda key, x: {"params": hk.transform(lambda x: hk.Linear(2)(x)).init(key, x)},
        lambda key, x: (x, x, x),
    ],
)
def test_what_is_no_init_of_haiku_is_refused(init):
    with pytest.raises(TypeError, match=r"Write partition_specs\(f\.init, \.\.\.\)"):
        partition_specs(init, KEY, X)


def test_threads_do_not_hear_each_other():
    def specs(i):
        names = ("data", None) if i % 2 else (None, "model")
        module = nn.Dense(4, kernel_init=partitioned(INIT, names))
        f = hk.transform(lambda x: FlaxModule(module, name="net")(x))
        return partition_specs(f.init, KEY, X)[0]["net"]["kernel"] == P(*names)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(specs, range(16)))


def test_an_axis_that_the_mesh_lacks_is_jaxs_error_with_the_leaf_and_the_line():
    f = hk.transform_with_state(lambda x: FlaxModule(Mlp())(x))
    with pytest.raises(ValueError, match="embed") as error:
        named_shardings(make_mesh(1, 1), partition_specs(f.init, KEY, X))
    (note,) = error.value.__notes__
    assert "[0]['mlp/Dense_0']['kernel']" in note
    assert "logical_axis_rules([('embed', None), ('mlp', None)])" in note
    with pytest.raises(Exception, match="duplicate entries") as error:
        named_shardings(make_mesh(1, 1), {"w": P("data", "data")})
    assert error.value.__notes__ == ["This is the spec at ['w']."]


@pytest.mark.parametrize(
    ("specs", "where"),
    [({"a": {"w": ("data",)}}, "['a']['w'][0]"), ({"w": X}, "['w']"), (X, "its root")],
)
def test_what_is_no_spec_is_refused(specs, where):
    with pytest.raises(TypeError, match=r"partition_specs\(f\.init") as error:
        named_shardings(make_mesh(1, 1), specs)
    assert f" at {where}." in str(error.value)
    assert named_shardings(make_mesh(1, 1), {"a": None}) == {"a": None}


class Lists(nn.Module):
    """Boxes in lists, which are leaves of Haiku's."""

    @nn.compact
    def __call__(self, x):
        ones = jnp.ones([8])
        boxes = lambda: [
            nn.Partitioned(ones, ("model",)),
            (ones, nn.LogicallyPartitioned(jnp.ones([4, 8]), ("batch", "mlp"))),
            nn.Partitioned(nn.LogicallyPartitioned(ones, ("mlp",)), ("data",)),
        ]
        w = self.param("w", lambda key: boxes())
        v = self.variable("stats", "v", boxes).value
        return x * nn.meta.unbox(w[0])[None] + nn.meta.unbox(v[1][1])


@pytest.mark.parametrize("rules", [(), RULES], ids=["no_rules", "rules"])
def test_boxes_in_lists(rules):
    f = hk.transform_with_state(lambda x: FlaxModule(Lists(), name="net")(x))
    names = ("data", "model") if rules else ("batch", "mlp")
    expected = [P("model"), P(), P(*names), P("data")]
    with nn.logical_axis_rules(rules):
        params, state = partition_specs(f.init, KEY, X)
    assert leaves(params["net"]["w"]) == leaves(state["net/stats"]["v"]) == expected
    made = jax.eval_shape(f.init, KEY, X)
    specs = jax.tree.map(lambda _: 0, (params, state), is_leaf=lambda x: type(x) is P)
    assert jax.tree.structure(made) == jax.tree.structure(specs)


class OfDict(nnx.Module):
    def __init__(self, rngs):
        value = {"a": jnp.ones([8, 4]), "b": {"c": jnp.ones([8, 2])}}
        self.w = nnx.Param(value, out_sharding=(None, "model"))
        self.s = nnx.BatchStat({"d": jnp.ones([2])}, out_sharding=("model",))

    def __call__(self, x):
        return x @ self.w.get_value()["a"]


@pytest.mark.parametrize("wrapped", [False, True])
def test_variables_of_nnx_that_hold_dicts(wrapped):
    def forward(x):
        net = hk_bridge.wrap(OfDict) if wrapped else FlaxModule
        return net(name="net")(x) if wrapped else net(module, name="net")(x)

    with jax.set_mesh(make_mesh(4, 2)):
        module = OfDict(nnx.Rngs(0))
        of_flax = nnx.get_partition_spec(nnx.state(module))
        params, state = partition_specs(hk.transform_with_state(forward).init, KEY, X)
    assert leaves(params) == [of_flax["w"].get_value()] * 2 == [P(None, "model")] * 2
    assert leaves(state) == [of_flax["s"].get_value()] == [P("model")]


@pytest.mark.parametrize("stacked", [False, True])
def test_more_names_than_axes_are_jaxs_error(stacked):
    module = nn.Dense(8, kernel_init=partitioned(INIT, ("data", None, "model")))

    def forward(x):
        layer = lambda x: FlaxModule(module, name="net")(x)
        return hk.experimental.layer_stack(4)(layer)(x) if stacked else layer(x)

    f, mesh = hk.transform_with_state(forward), make_mesh(4, 2)
    specs = named_shardings(mesh, partition_specs(f.init, KEY, X))
    of_flax = nn.get_sharding(jax.eval_shape(module.init, KEY, X), mesh)
    with pytest.raises(ValueError, match="rank at least 3"):
        jax.jit(module.init, out_shardings=of_flax)(KEY, X)
    with pytest.raises(ValueError, match=f"rank at least {3 + stacked}"):
        jax.jit(f.init, out_shardings=specs)(KEY, X)


def test_a_model_is_born_sharded():
    f = hk.transform_with_state(lambda x: FlaxModule(Layers(), name="net")(x))
    mesh = make_mesh(4, 2)
    with nn.logical_axis_rules(RULES):
        shardings = named_shardings(mesh, partition_specs(f.init, KEY, X))
        params, _ = jax.jit(f.init, out_shardings=shardings)(KEY, X)
    kernel = params["net/layers/Dense_0"]["kernel"]
    assert kernel.shape == (3, 8, 16)
    assert {shard.data.shape for shard in kernel.addressable_shards} == {(3, 8, 8)}
    whole, _ = jax.jit(f.init)(KEY, X)
    assert_identical(jax.device_get(params), jax.device_get(whole))


# Constraints.


def constraints(jaxpr):
    """The shardings that a program asks for, in order."""
    return re.findall(r"sharding_constraint\[[^\]]*?sharding=(.*?)\n", str(jaxpr))


@pytest.mark.parametrize("phase", ["init", "apply"])
def test_logical_constraints_are_in_the_program(phase):
    module, mesh = Mlp(), make_mesh(4, 2)
    f = hk.transform(lambda x: FlaxModule(module, name="net")(x))
    variables = module.init(KEY, X)  # Haiku's leaves are open, Flax's in boxes
    params, _ = hk_bridge.to_haiku(variables, name="net")
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        if phase == "init":
            ours = jax.make_jaxpr(f.init)(KEY, X)
            theirs = jax.make_jaxpr(module.init)(KEY, X)
        else:
            ours = jax.make_jaxpr(f.apply)(params, None, X)
            theirs = jax.make_jaxpr(module.apply)(variables, X)
    assert constraints(ours) == constraints(theirs) != []
    none = jax.make_jaxpr(f.apply)(params, None, X)
    assert constraints(none) == []


# Meshes of all kinds, one after the other.


@contextlib.contextmanager
def on(data, model, kind=AxisType.Auto):
    """Under a mesh of that many devices, with rules; without one for 0."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(nn.logical_axis_rules(RULES))
        stack.enter_context(nnx.use_eager_sharding(data > 0))
        if data:
            names, kinds = ("data", "model"), (kind,) * 2
            devices = jax.devices()[: data * model]
            mesh = jax.make_mesh(
                (data, model), names, axis_types=kinds, devices=devices
            )
            stack.enter_context(jax.set_mesh(mesh))
        yield


class OfNnx(nnx.Module):
    """Annotated Variables, statistics and keys."""

    def __init__(self, rngs):
        init = nnx.with_partitioning(INIT, ("embed", "mlp"))
        self.up = nnx.Linear(8, 16, kernel_init=init, rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.noise = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.noise(self.norm(self.up(x)))


class WithArray(OfNnx):
    """With an array in an attribute, which is remembered with its values."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.scale = nnx.data(jnp.full([16], 2.0))

    def __call__(self, x):
        return super().__call__(x) * self.scale[None]


def pair(module, x=X):
    return hk_bridge.testing._pair(module, (x,), {}, None, None, None, "net")


# Under a mesh Flax itself constrains these kernels before they have their third axis.
ON_A_MESH = [name for name in ANNOTATED if name != "attention"]


@pytest.mark.parametrize("name", ON_A_MESH)
def test_under_a_mesh_the_program_is_flaxs(name):
    """Constraints, rules and boxes included, of each mesh that is set."""
    two = pair(ANNOTATED[name]())  # its keys are of no mesh
    with on(4, 2):
        assert same_program(two) == "init, apply and gradient"
        found = [len(constraints(apply_programs(two).ours.program))]
    for mesh in ((2, 2), (0, 0)):
        with on(*mesh):
            programs = apply_programs(two)
        assert_same("apply", programs)
        found.append(len(constraints(programs.ours.program)))
    assert found[0] == found[1] > found[2] == 0


@pytest.mark.parametrize("wrapped", [False, True])
def test_under_a_mesh_the_program_of_nnx_is_flaxs(wrapped):
    def build():
        rngs = nnx.Rngs(params=KEY, dropout=KEY)
        return hk_bridge.wrap(OfNnx)(rngs=rngs, name="net")

    for mesh in ((4, 2), (2, 2), (0, 0), (4, 2)):
        with on(*mesh):
            two = pair(OfNnx(nnx.Rngs(params=0, dropout=1)))
            two = dataclasses.replace(two, build=build) if wrapped else two
            assert_same("apply", apply_programs(two))


def test_a_wrapped_class_under_one_mesh_after_the_other():
    f = hk.transform_with_state(lambda x: hk_bridge.wrap(WithArray)(name="net")(x))
    found = []
    for mesh in ((4, 2), (2, 2), (0, 0), (2, 4)):
        with on(*mesh):
            params, state = jax.jit(f.init)(KEY, X)
            y, _ = jax.jit(f.apply)(params, state, KEY, X)
        found.append(jax.device_get((params, state, y)))
    for other in found[1:]:
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5),
            other, found[0],
        )  # fmt: skip


def test_without_a_mesh_the_error_of_nnx_has_the_line():
    f = hk.transform_with_state(lambda x: hk_bridge.wrap(OfNnx)(name="net")(x))
    calls = {
        "specs": lambda: partition_specs(f.init, KEY, X),
        "init": lambda: f.init(KEY, X),
        "apply": lambda: f.apply(params, state, KEY, X),
    }
    with on(4, 2):
        params, state = jax.jit(f.init)(KEY, X)
    with nn.logical_axis_rules(RULES):
        for call in calls.values():
            with pytest.raises(ValueError, match="mesh context") as error:
                call()
            assert sum("jax.set_mesh(mesh)" in n for n in error.value.__notes__) == 1
        with nnx.use_eager_sharding(False):  # as the note says
            for call in calls.values():
                call()


# Axes of type Explicit, which `jax.make_mesh` of newer JAX gives.


@pytest.mark.parametrize("name", ON_A_MESH)
def test_specs_under_axes_of_type_explicit(name):
    f = hk.transform_with_state(lambda x: FlaxModule(ANNOTATED[name](), name="net")(x))
    with on(0, 0):
        expected = partition_specs(f.init, KEY, X)
    with on(4, 2, AxisType.Explicit):
        assert partition_specs(f.init, KEY, X) == expected
        x = jax.device_put(X, P("data"))
        assert partition_specs(f.init, KEY, x) == expected


def test_arrays_and_stand_ins_that_are_sharded_over_such_axes():
    """Arguments, variables and whatever else `init` knows."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    x = jax.device_put(X, NamedSharding(mesh, P("data")))
    like = jax.ShapeDtypeStruct(X.shape, X.dtype, sharding=x.sharding)
    module = dense("data", "model")
    plain = nn.Dense(8, kernel_init=partitioned(INIT, (None, None)))
    variables = nn.unbox(plain.init(KEY, X))
    of_kernel = NamedSharding(mesh, P(None, "model"))
    kernel = jax.device_put(variables["params"]["kernel"], of_kernel)
    given = {"params": {**variables["params"], "kernel": kernel}}
    f = hk.transform(lambda x: FlaxModule(module, name="net")(x))
    g = hk.transform(
        lambda y: FlaxModule(plain, variables=variables, name="net")(y + x)
    )
    h = hk.transform(lambda y: FlaxModule(nn.Dense(8), variables=given, name="net")(y))
    with jax.set_mesh(mesh):
        for array in (x, like):
            params, _ = partition_specs(f.init, KEY, array)
            assert params["net"]["kernel"] == P("data", "model")
        params, _ = partition_specs(g.init, KEY, X)
        assert params["net"]["kernel"] == P(None, None)
        params, _ = partition_specs(h.init, KEY, X)
        assert params["net"]["kernel"] == P()


class Raw(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jax.lax.with_sharding_constraint(nn.Dense(8)(x), P("data", "model"))


REFUSED = {
    "with_partitioning": lambda: dense("data", "model"),
    "with_logical_partitioning": Mlp,
    "lifted": Layers,
    "with_sharding_constraint": Raw,
}


@pytest.mark.parametrize("kind", [AxisType.Explicit, "mixed"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_constraint_on_axes_of_type_explicit_is_flaxs_error_with_the_line(name, kind):
    module = REFUSED[name]()
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    kinds = (kind, kind)
    if kind == "mixed":
        kinds = (AxisType.Explicit, AxisType.Auto)
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=kinds)
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        with pytest.raises((AssertionError, ValueError)) as theirs:
            jax.jit(module.init)(KEY, X)
        with pytest.raises(type(theirs.value)) as ours:
            jax.jit(f.init)(KEY, X)
    assert str(ours.value) == str(theirs.value)
    line = (
        "Write jax.make_mesh((4, 2), ('data', 'model'), "
        "axis_types=(jax.sharding.AxisType.Auto,) * 2)."
    )
    assert sum(line in note for note in ours.value.__notes__) == 1


def test_other_errors_under_axes_of_type_explicit_have_no_such_line():
    f = hk.transform(lambda x: FlaxModule(nn.Dense(3), name="net")(x))
    with on(4, 2, AxisType.Explicit), pytest.raises(ScopeCollectionNotFound) as error:
        f.apply({}, None, X)
    assert not any("make_mesh" in note for note in error.value.__notes__)


def test_what_flax_allows_on_axes_of_type_explicit():
    """NNX reshards; linen's constraints hold of what is sharded as they say."""
    module = dense(None, "model")
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    g = hk.transform_with_state(lambda x: hk_bridge.wrap(nnx.Linear)(8, 16)(x))
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    shardings = named_shardings(mesh, partition_specs(f.init, KEY, X))
    params, state = jax.jit(f.init, out_shardings=shardings)(KEY, X)
    variables = hk_bridge.to_flax(
        params, state, name="net", like=jax.eval_shape(module.init, KEY, X)
    )
    with jax.set_mesh(mesh):
        x = jax.device_put(X, P("data"))
        y, _ = jax.jit(f.apply)(params, state, None, x)
        assert_identical(y, jax.jit(module.apply)(variables, x))
        assert y.sharding.spec == P("data", "model")
        jax.jit(g.apply)(*jax.jit(g.init)(KEY, X), None, X)


# Training on eight devices.


class Block(nn.Module):
    @nn.compact
    def __call__(self, x):
        kernel = functools.partial(logical, INIT)
        y = nn.MultiHeadDotProductAttention(
            # Two of the three axes: under a mesh, Flax constrains these kernels also
            # before it has given them their third.
            num_heads=2, use_bias=False, kernel_init=kernel(("embed", "heads")),
            out_kernel_init=kernel(("heads", None)),
        )(nn.LayerNorm()(x))  # fmt: skip
        x = nn.with_logical_constraint(x + y, ("batch", None, "embed"))
        y = nn.Dense(32, kernel_init=kernel(("embed", "mlp")))(nn.LayerNorm()(x))
        y = nn.with_logical_constraint(nn.gelu(y), ("batch", None, "mlp"))
        return x + nn.Dense(16, kernel_init=kernel(("mlp", "embed")))(y)


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        embedding = logical(nn.initializers.normal(0.1), ("vocab", "embed"))
        x = nn.Embed(12, 16, embedding_init=embedding)(tokens)
        for _ in range(2):
            x = Block()(x)
        x = nn.LayerNorm()(x)
        return nn.Dense(12, kernel_init=logical(INIT, ("embed", "vocab")))(x)


TOKENS = jax.random.randint(KEY, (8, 9), 0, 12)
OPTIMIZER = optax.sgd(0.3)


def make_step(logits, shardings):
    def loss_fn(params, tokens):
        y = logits(params, tokens[:, :-1])
        labels = tokens[:, 1:]
        return optax.softmax_cross_entropy_with_integer_labels(y, labels).mean()

    @functools.partial(jax.jit, out_shardings=(shardings, None, None))
    def step(params, opt_state, tokens):
        loss, grads = jax.value_and_grad(loss_fn)(params, tokens)
        updates, opt_state = OPTIMIZER.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    return step


def train(mesh):
    """Losses, the trained params, their shardings, and the step."""
    f = hk.transform(lambda tokens: FlaxModule(Transformer(), name="net")(tokens))
    tokens = jax.device_put(TOKENS, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        specs, _ = partition_specs(f.init, KEY, TOKENS[:, :-1])
        shardings = named_shardings(mesh, specs)
        params = jax.jit(f.init, out_shardings=shardings)(KEY, TOKENS[:, :-1])
        step = make_step(lambda params, x: f.apply(params, None, x), shardings)
        opt_state, losses = OPTIMIZER.init(params), []
        for _ in range(10):
            params, opt_state, loss = step(params, opt_state, tokens)
            losses.append(float(loss))
    return losses, params, shardings, step, (opt_state, tokens)


COLLECTIVES = (
    "all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute",
)  # fmt: skip


def collectives(step, *args):
    text = step.lower(*args).compile().as_text()
    found = re.findall(rf" ({'|'.join(COLLECTIVES)})(?:-start)?\(", text)
    return Counter(found)


@pytest.mark.weekly
def test_training_a_transformer_on_a_mesh_is_training_it_on_one_device():
    mesh = make_mesh(4, 2)
    losses, params, shardings, step, rest = train(mesh)
    expected, *_ = train(make_mesh(1, 1))
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert losses[-1] < 0.7 * losses[0]
    assert step._cache_size() == 1

    as_annotated = jax.tree.map(
        lambda x, sharding: x.sharding.is_equivalent_to(sharding, x.ndim),
        params, shardings,
    )  # fmt: skip
    assert jax.tree.all(as_annotated)
    attention = params["net/Block_0/MultiHeadDotProductAttention_0/query"]["kernel"]
    assert attention.sharding.spec == P(None, "model")
    assert attention.addressable_shards[0].data.shape == (16, 1, 8)

    # Native Flax on the same mesh, with the same values.
    variables = hk_bridge.to_flax(params, {}, name="net")
    flax_shardings = hk_bridge.to_flax(shardings, {}, name="net")
    native = make_step(Transformer().apply, flax_shardings)
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        ours = collectives(step, params, *rest)
        theirs = collectives(native, variables, *rest)
    assert ours == theirs
    assert ours["all-reduce"] > 0


# Named axes.


def batch_norm_case():
    x = array(8, 3)
    module = nn.BatchNorm(use_running_average=False, axis_name="batch")
    plain = nn.BatchNorm(use_running_average=False)
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    g = hk.transform_with_state(lambda x: FlaxModule(plain, name="net")(x))
    params, state = g.init(KEY, x)
    return x, f, params, state, g.apply(params, state, None, x)


def test_batch_norm_under_shard_map_has_the_statistics_of_the_whole_batch():
    x, f, params, state, (expected, expected_state) = batch_norm_case()
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))

    @jax.jit
    @functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("batch")),
        out_specs=(P("batch"), P()),
    )  # fmt: skip
    def apply(params, state, x):
        return f.apply(params, state, None, x)

    y, new_state = apply(params, state, x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6),
        new_state, expected_state,
    )  # fmt: skip


def test_batch_norm_under_hk_vmap_has_the_statistics_of_the_whole_batch():
    x, _, params, state, (expected, expected_state) = batch_norm_case()
    module = nn.BatchNorm(use_running_average=False, axis_name="batch")

    def forward(x):
        net = FlaxModule(module, name="net")
        return hk.vmap(net, axis_name="batch", split_rng=False)(x)

    f = hk.transform_with_state(forward)
    own_params, own_state = f.init(KEY, x)
    assert_identical(own_params, params)
    assert jax.tree.structure(own_state) == jax.tree.structure(state)
    y, new_state = f.apply(params, state, None, x)
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-6)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-6),
        new_state, expected_state,
    )  # fmt: skip


def test_code_sees_the_boxes_of_state_at_apply():
    seen = []

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            make = lambda: nn.Partitioned(jnp.ones(4), ("model",))
            self.variable("stats", "mean", make)
            seen.append(type(self.variables["stats"]["mean"]))
            return x

    x = jnp.ones([2, 4])
    f = hk.transform_with_state(lambda x: FlaxModule(Net(), name="net")(x))
    f.apply(*f.init(jax.random.key(0), x), None, x)
    Net().apply(Net().init(jax.random.key(0), x), x)
    assert seen == [nn.Partitioned] * 4
