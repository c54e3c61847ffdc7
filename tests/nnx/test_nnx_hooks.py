"""Hooks, policies, tables and specs of Haiku, on what an NNX module holds."""

from catalogue import array
from catalogue_nnx import Boxed
from catalogue_nnx import Deep
from catalogue_nnx import boxed
from catalogue_nnx_lifted import Scan
from catalogue_nnx_models import Mlp
from flax import nnx
import haiku as hk
import jax
import jax.numpy as jnp
import jmp
import pytest
from replay import pure

from hk_bridge import FlaxModule
from hk_bridge import sharding
from hk_bridge import to_flax
from hk_bridge import wrap
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)
SHAPES = {"net/linear1/kernel": (4, 8), "net/linear1/bias": (8,)}


def mlp():
    module = Mlp(4, 8, 3, rngs=nnx.Rngs(0))
    module.eval()
    return module


def forward(x, module=None):
    return FlaxModule(mlp() if module is None else module, name="net")(x)


# Creators, getters and setters.


def test_creators_are_told_shape_and_dtype():
    told = {}

    def creator(next_creator, shape, dtype, init, context):
        told[context.full_name] = (tuple(shape), jnp.dtype(dtype))
        return next_creator(shape, dtype, init)

    def hooked(x):
        with hk.custom_creator(creator):
            return forward(x)

    params, _ = hk.transform_with_state(hooked).init(None, X)
    leaves = {f"{m}/{k}": v for m, bundle in params.items() for k, v in bundle.items()}
    assert told == {name: (x.shape, x.dtype) for name, x in leaves.items()}


def test_creators_may_make_other_values():
    def creator(next_creator, shape, dtype, init, context):
        return next_creator(shape, dtype, jnp.ones)

    seen = []

    def hooked(x):
        with hk.custom_creator(creator):
            seen.append(forward(x))
        return seen[-1]

    f = hk.transform_with_state(hooked)
    params, state = f.init(None, X)
    assert all(bool(jnp.all(leaf == 1.0)) for leaf in jax.tree.leaves(params))
    assert_identical(seen[0], f.apply(params, state, None, X)[0])


def test_creators_of_state_may_make_other_values():
    def creator(next_creator, shape, dtype, init, context):
        return next_creator(shape, dtype, lambda s, d: jnp.full(s, 3.0, d))

    def hooked(x):
        with hk.custom_creator(creator, params=False, state=True):
            return forward(x)

    _, state = hk.transform_with_state(hooked).init(None, X)
    assert_identical(
        state["net/batch_stats/bn"], {k: jnp.full(8, 3.0) for k in ("mean", "var")}
    )


def test_getters_give_what_runs():
    def hooked(x):
        with hk.custom_getter(lambda get, value, context: get(value) * 2.0):
            return forward(x)

    f = hk.transform_with_state(hooked)
    params, state = f.init(None, X)
    module = mlp()
    assert_identical(to_flax(params, {}, name="net")["params"], pure(module, nnx.Param))
    doubled = jax.tree.map(lambda x: x * 2.0, nnx.state(module, nnx.Param))
    nnx.update(module, doubled)
    assert_identical(f.apply(params, state, None, X)[0], module(X))


def test_setters_give_what_is_kept():
    def hooked(x):
        setter = lambda next_setter, value, context: next_setter(value * 0.0)
        with hk.custom_setter(setter):
            return forward(x, nnx.BatchNorm(4, rngs=nnx.Rngs(0)))

    f = hk.transform_with_state(hooked)
    params, state = f.init(None, X)
    _, state = f.apply(params, state, None, X)
    assert not any(bool(jnp.any(leaf)) for leaf in jax.tree.leaves(state))


def test_what_was_not_written_is_not_set():
    written = []

    def setter(next_setter, value, context):
        written.append(context.full_name)
        return next_setter(value)

    def hooked(x):
        with hk.custom_setter(setter):
            return forward(x)

    f = hk.transform_with_state(hooked)
    f.apply(*f.init(None, X), None, X)
    assert written == []


# Policies.


@pytest.fixture
def half():
    """A policy for the classes that it is set on, until the test ends."""
    policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    classes = []

    def set_on(cls):
        hk.mixed_precision.set_policy(cls, policy)
        classes.append(cls)
        return cls

    yield set_on
    for cls in classes:
        hk.mixed_precision.clear_policy(cls)


def test_policies_of_a_wrapped_class(half):
    Wrapped = half(wrap(nnx.Linear))
    f = hk.transform(lambda x: Wrapped(4, 3, name="net")(x))
    check_policy(f)


def test_policies_of_all_modules(half):
    half(FlaxModule)
    module = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    check_policy(hk.transform(lambda x: FlaxModule(module, name="net")(x)))


def check_policy(f):
    params = f.init(KEY, X)
    assert params["net"]["kernel"].dtype == jnp.float32
    kernel = params["net"]["kernel"].astype(jnp.bfloat16)
    expected = (X.astype(jnp.bfloat16) @ kernel).astype(jnp.float32)
    assert_identical(f.apply(params, None, X), expected)


# Tables and interceptors.


def test_tables_have_rows_for_submodules():
    f = hk.transform_with_state(forward)
    text = hk.experimental.tabulate(f)(X)
    for name in ("net", "net/linear1", "net/bn", "net/dropout", "net/linear2"):
        assert f" {name} " in text, name
    total = sum(x.size for x in jax.tree.leaves(pure(mlp(), nnx.Param)))
    assert f"{total}" in text


def test_summaries_know_the_methods():
    f = hk.transform_with_state(forward)
    rows = hk.experimental.eval_summary(f)(X)
    names = [row.module_details.module.module_name for row in rows]
    assert names == ["net", "net/linear1", "net/bn", "net/dropout", "net/linear2"]
    linear = rows[1]
    assert linear.module_details.method_name == "__call__"
    assert sorted(linear.module_details.params) == [
        "net/linear1/bias",
        "net/linear1/kernel",
    ]
    assert linear.output_spec.shape == (2, 8)


def test_interceptors_run_around_submodules():
    seen = []

    def interceptor(run, args, kwargs, context):
        y = run(*args, **kwargs)
        if context.method_name == "__call__":
            seen.append((context.module.module_name, y.shape))
        return y * 2.0 if context.module.module_name.endswith("linear2") else y

    def hooked(x):
        with hk.intercept_methods(interceptor):
            return forward(x)

    f = hk.transform_with_state(hooked)
    params, state = f.init(None, X)
    del seen[:]
    y, _ = f.apply(params, state, None, X)
    assert_identical(y, mlp()(X) * 2.0)
    assert ("net/linear1", (2, 8)) in seen
    assert seen[-1] == ("net", (2, 3))


def test_tables_of_a_scanned_stack():
    """Haiku runs what it tabulates without jit, where a scan is a loop of Python."""
    module = Scan(nnx.Rngs(0))
    f = hk.transform_with_state(lambda x: FlaxModule(module, name="net")(x))
    rows = hk.experimental.eval_summary(f)(X)
    names = [row.module_details.module.module_name for row in rows]
    assert names[0] == "net"
    assert {name.rpartition("/")[2] for name in names} >= {"layer", "norm", "dropout"}
    params, state = f.init(KEY, X)
    with jax.disable_jit():
        y, after = f.apply(params, state, KEY, X)
        shapes = jax.eval_shape(f.apply, params, state, KEY, X)
    jitted = f.apply(params, state, KEY, X)
    kinds = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
    assert kinds((y, after)) == kinds(shapes) == kinds(jitted)
    for ours, theirs in zip(*map(jax.tree.leaves, ((y, after), jitted)), strict=True):
        assert jnp.allclose(ours, theirs, atol=1e-5)


def test_lists_have_rows():
    f = hk.transform(lambda x: FlaxModule(Deep(nnx.Rngs(0)), name="net")(x))
    rows = hk.experimental.eval_summary(f)(X)
    names = [row.module_details.module.module_name for row in rows]
    assert "net/rows/%i0/%i1" in names
    assert len(names) == len(set(names))


# Specs for a mesh.


def test_specs_are_those_of_the_metadata():
    f = hk.transform_with_state(lambda x: FlaxModule(boxed(nnx.Rngs(0)), name="net")(x))
    specs, _ = sharding.partition_specs(f.init, KEY, X)
    P = jax.sharding.PartitionSpec
    own = nnx.get_partition_spec(nnx.state(boxed(nnx.Rngs(0))))
    assert specs["net/layer"]["kernel"] == own["layer"]["kernel"].get_raw_value()
    if hasattr(nnx, "capture"):  # before that, NNX has another name for it
        assert specs["net/layer"]["kernel"] == P("in", "out")
    assert specs["net/layer"]["bias"] in (None, P())


# Raw transforms of JAX.


def test_variables_run_natively():
    """What Haiku holds goes back into the module, for `jax.vmap` and solvers."""

    def apply(x):
        net = FlaxModule(mlp(), name="net")
        net(x)
        variables = net.variables
        graphdef, state = nnx.split(net.module)
        nnx.replace_by_pure_dict(state, {**nnx.to_pure_dict(state)} | merged(variables))
        run = lambda row: nnx.merge(graphdef, state)(row[None])[0]
        return jax.vmap(run)(x)

    def merged(variables):
        found = {}
        for tree in variables.values():
            for path, leaf in nnx.traversals.flatten_mapping(tree).items():
                found[path] = leaf
        return nnx.traversals.unflatten_mapping(found)

    f = hk.transform_with_state(apply)
    params, state = f.init(None, X)
    y, _ = f.apply(params, state, None, X)
    assert jnp.allclose(y, mlp()(X), atol=1e-6)


@pytest.mark.parametrize("make", [lambda: Boxed, lambda: Mlp])
def test_instances_have_a_text(make):
    cls = make()
    module = boxed(nnx.Rngs(0)) if cls is Boxed else mlp()
    texts = []

    def build(x):
        net = FlaxModule(module, name="net")
        texts.append(repr(net))
        return net(x)

    hk.transform_with_state(build).init(None, X)
    assert cls.__name__ in texts[0]
    assert len(texts[0].splitlines()) == 1
