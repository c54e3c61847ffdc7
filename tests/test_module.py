"""What `FlaxModule` does where the laws do not reach."""

from concurrent.futures import ThreadPoolExecutor
import contextlib
import copy
import gc
import itertools
import weakref

from catalogue import Autoencoder
from catalogue import Noise
from catalogue import Norm
from catalogue import Sow
from catalogue import array
import cloudpickle
import flax.core.scope
import flax.errors
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import FlaxModule
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)


def run(forward, *args, rng=KEY, apply_rng=None):
    """`(params, state, output, new state)`."""
    f = hk.transform_with_state(forward)
    params, state = f.init(rng, *args)
    return params, state, *f.apply(params, state, apply_rng, *args)


# Names.


def test_the_default_name_is_the_modules_own_or_its_class():
    def forward(x):
        x = FlaxModule(nn.Dense(4))(x)
        x = FlaxModule(nn.Dense(4, name="head"))(x)
        x = FlaxModule(nn.Dense(4, name="head"), name="other")(x)
        x = FlaxModule(nn.LayerNorm())(x)
        return FlaxModule(nn.Dense(4))(x)

    params, *_ = run(forward, X)
    assert list(params) == ["dense", "head", "other", "layer_norm", "dense_1"]


def test_an_invalid_name_is_haikus_error():
    with pytest.raises(ValueError, match="valid Python identifier"):
        run(lambda x: FlaxModule(nn.Dense(2), name="a-b")(x), X)


def test_two_under_one_name_share_all():
    def forward(x):
        one = FlaxModule(Norm(), name="net")
        two = FlaxModule(Norm(), name=hk.force_name("net"))
        return one(x, train=True), two(x, train=True)

    params, state, (one, two), new = run(forward, X)
    assert_identical(one, two)
    assert sorted(state) == ["net/batch_stats/BatchNorm_0"]
    once = 0.5 * state["net/batch_stats/BatchNorm_0"]["var"]
    assert jnp.all(new["net/batch_stats/BatchNorm_0"]["var"] < 0.5 * once + 1.0)
    variables = hk_bridge.to_flax(params, state, name="net")
    for _ in range(2):
        _, stats = Norm().apply(variables, X, train=True, mutable=["batch_stats"])
        variables = {**variables, **stats}
    assert_identical(hk_bridge.to_flax(params, new, name="net"), variables)


# Bound modules, given variables.


def test_a_bound_module_brings_its_variables():
    variables = Norm().init(KEY, X)
    bound = Norm().bind(variables)
    params, state, *_ = run(lambda x: FlaxModule(bound, name="net")(x), X, rng=None)
    assert_identical(hk_bridge.to_flax(params, state, name="net"), variables)


def test_given_variables_are_used_and_the_rest_initialised_as_ever():
    plain = run(lambda x: FlaxModule(Norm(), name="net")(x), X)[:2]
    kernel = jnp.full([4, 4], 0.5, jnp.float16)
    given = {
        "params": {"Dense_0": {"kernel": kernel}},
        "batch_stats": {"BatchNorm_0": {"var": jnp.full([4], 7.0)}},
    }

    def forward(x):
        net = FlaxModule(Norm(), name="net", variables=given)
        with jax.numpy_dtype_promotion("standard"):
            return net(x, train=False)

    params, state, *_ = run(forward, X)
    assert params["net/Dense_0"]["kernel"] is kernel
    assert jnp.all(state["net/batch_stats/BatchNorm_0"]["var"] == 7.0)
    expected = copy.deepcopy(plain)
    expected[0]["net/Dense_0"]["kernel"] = kernel
    expected[1]["net/batch_stats/BatchNorm_0"]["var"] = jnp.full([4], 7.0)
    assert_identical((params, state), expected)


@pytest.mark.parametrize("form", ["frozen", "numpy", "boxed"])
def test_given_variables_in_every_form(form):
    variables = Norm().init(KEY, X)
    given = {
        "frozen": lambda: flax.core.freeze(variables),
        "numpy": lambda: jax.tree.map(np.asarray, variables),
        "boxed": lambda: jax.tree.map(
            lambda x: nn.Partitioned(x, (None,) * x.ndim), variables
        ),
    }[form]()
    forward = lambda x: FlaxModule(Norm(), name="net", variables=given)(x)
    f = hk.transform_with_state(forward)
    params, state = f.init(None, X)
    assert_identical(
        jax.tree.map(jnp.asarray, hk_bridge.to_flax(params, state, name="net")),
        variables,
    )
    leaves = jax.tree.leaves(nn.unbox(flax.core.unfreeze(given))["params"])
    assert {id(x) for x in leaves} == {id(x) for x in jax.tree.leaves(params)}


def test_no_initialiser_runs_and_no_key_is_drawn_for_a_given_leaf():
    def fail(*args):
        if not isinstance(args[0], jax.core.Tracer):
            raise AssertionError("initialised")
        return jnp.zeros(args[1])

    module = nn.Dense(2, kernel_init=fail, bias_init=fail)
    given = {"params": {"kernel": jnp.ones([4, 2]), "bias": jnp.ones([2])}}
    params, _, y, _ = run(
        lambda x: FlaxModule(module, name="net", variables=given)(x), X, rng=None
    )
    assert_identical(params, {"net": given["params"]})
    assert_identical(y, module.apply(given, X))


def test_given_variables_reach_into_lifted_transforms_and_boxes():
    class Body(nn.Module):
        @nn.compact
        def __call__(self, carry, _):
            init = nn.with_partitioning(nn.initializers.lecun_normal(), ("a", "b"))
            return nn.Dense(4, kernel_init=init, name="dense")(carry), None

    scan = nn.scan(
        Body,
        {"params": 0},
        split_rngs={"params": True},
        length=3,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
    kernel = jnp.ones([3, 4, 4])

    def forward(x):
        given = {"params": {"dense": {"kernel": kernel}}}
        return FlaxModule(scan(), name="net", variables=given)(x, None)

    params, _, y, _ = run(forward, X)
    draw = hk.PRNGSequence(KEY)
    plain = nn.unbox(scan().init(next(draw), X, None))
    plain["params"]["dense"]["kernel"] = kernel
    assert_identical(hk_bridge.to_flax(params, {}, name="net"), plain)
    assert_identical(y, scan().apply(plain, X, None))


class Counts(nn.Module):
    """How often it ran, and a layer whose statistics may be given."""

    @nn.compact
    def __call__(self, x):
        count = self.variable("counts", "n", jnp.zeros, ())
        count.value += 1.0
        return nn.BatchNorm(use_running_average=True)(x), count.value


@pytest.mark.parametrize("count", [None, 5.0])
def test_given_state_is_what_the_one_pass_of_init_starts_from(count):
    outputs, stats = [], {"mean": jnp.ones([4]), "var": jnp.full([4], 2.0)}
    given = {"batch_stats": {"BatchNorm_0": stats}}
    if count is not None:
        given["counts"] = {"n": jnp.asarray(count)}

    def forward(x):
        net = FlaxModule(Counts(), name="net", variables=given)
        outputs.append(net(x))
        outputs.append(net(x))
        return outputs[-1]

    params, state = hk.transform_with_state(forward).init(KEY, X)
    start = 0.0 if count is None else count
    assert [n for _, n in outputs] == [start + 1, start + 2]
    variables = hk_bridge.to_flax(params, state, name="net")
    assert_identical(variables["batch_stats"], given["batch_stats"])
    # Haiku's init gives what state starts from; Flax's what it is after the pass.
    assert variables["counts"]["n"] == (1.0 if count is None else count)
    expected, _ = Counts().apply({**variables, "counts": {"n": 0.0}}, X, mutable=True)
    assert_identical(outputs[0][0], expected[0])


class Count(nn.Module):
    @nn.compact
    def __call__(self):
        count = self.variable("counts", "n", jnp.zeros, ())
        count.value += 1.0
        return count.value


def ten_more(creator, shape, dtype, init, context):
    return creator(shape, dtype, lambda *args: 10.0 + init(*args))


@pytest.mark.parametrize("cls", [Count, nn.remat(Count)], ids=["plain", "remat"])
@pytest.mark.parametrize("hook", [False, True])
def test_calls_at_init_agree_where_state_starts_elsewhere(cls, hook):
    outputs = []

    def forward():
        given = None if hook else {"counts": {"n": jnp.asarray(10.0)}}
        with hk.custom_creator(ten_more, params=False, state=hook):
            net = FlaxModule(cls(), name="net", variables=given)
            outputs.append((net(), net(), net()))
        return outputs[-1]

    f = hk.transform_with_state(forward)
    params, state = f.init(None)
    f.apply(params, state, None)
    assert outputs[0] == outputs[1]
    assert outputs[0][2] == state["net/counts"]["n"] + 3.0


class Decoder(nn.Module):
    """Attention with a cache, which runs otherwise where the cache is there."""

    @nn.compact
    def __call__(self, x, _=None):
        x = nn.MultiHeadDotProductAttention(2, qkv_features=4, decode=True)(x)
        return nn.BatchNorm(use_running_average=True)(x), None


class Decoders(nn.Module):
    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "cache": 0, "batch_stats": 0}
        scan = nn.scan(Decoder, axes, split_rngs={"params": True}, length=2)
        return scan(name="scan")(x, None)[0]


def half(creator, shape, dtype, init, context):
    floats = jnp.issubdtype(dtype, jnp.floating)
    return creator(shape, jnp.float16 if floats else dtype, init)


@pytest.mark.parametrize(
    ("module", "of"),
    [
        *itertools.product([Decoder()], ["params", "batch_stats", "cache", "creator"]),
        # A cache that is given to a scan is there when it starts, as in `apply`.
        *itertools.product([Decoders()], ["params", "batch_stats", "creator"]),
    ],
    ids=lambda part: part if isinstance(part, str) else type(part).__name__,
)
def test_init_that_runs_again_finds_no_cache_of_the_first_run(module, of):
    x = jnp.ones([1, 3, 4])
    made = module.init(KEY, x)
    given = {c: tree for c, tree in made.items() if c == of}
    lifted = isinstance(module, Decoders)

    def forward(x):
        # What a creator of state changes in a scan is there when it starts, too.
        creator = hk.custom_creator(half, params=lifted, state=not lifted)
        hooks = creator if of == "creator" else contextlib.nullcontext()
        with hooks, jax.numpy_dtype_promotion("standard"):
            return FlaxModule(module, name="net", variables=given)(x)

    params, state = hk.transform_with_state(forward).init(KEY, x)
    variables = hk_bridge.to_flax(params, state, name="net")
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, made)
    assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(variables["cache"]))


# Keys.


def keys_drawn(forward, *args, init=False):
    """How many Haiku keys a call draws."""
    count = []

    def counted(*args):
        before = hk.maybe_get_rng_sequence_state()
        forward(*args)
        after = hk.maybe_get_rng_sequence_state()
        sequence, drawn = hk.PRNGSequence(before), 0
        while sequence.internal_state[0].tolist() != after[0].tolist():
            next(sequence)
            drawn += 1
        count.append(drawn)

    f = hk.transform_with_state(counted)
    key = jax.random.PRNGKey(0)
    params, state = f.init(key, *args)
    if not init:
        f.apply(params, state, key, *args)
    return count[-1]


def test_a_key_is_drawn_for_each_stream_that_is_used_and_for_no_other():
    noise = lambda train: lambda x: FlaxModule(Noise(), name="net")(x, train)
    dense = lambda x: FlaxModule(nn.Dense(2))(x)
    assert keys_drawn(dense, X, init=True) == 1
    assert keys_drawn(dense, X) == 0
    assert keys_drawn(lambda x: FlaxModule(nn.LayerNorm())(x), X, init=True) == 0
    assert keys_drawn(noise(True), X, init=True) == 4
    assert keys_drawn(noise(True), X) == 3
    assert keys_drawn(noise(False), X, init=True) == 1
    assert keys_drawn(noise(False), X) == 0


def test_a_call_can_be_replayed_in_flax_with_the_keys_that_it_draws():
    def forward(x, given):
        net = FlaxModule(Noise(), name="net")
        if not given:
            return net(x)
        rngs = {stream: hk.next_rng_key() for stream in ("dropout", "noise", "late")}
        return net(x, rngs=None if hk.running_init() else rngs), rngs

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X, False)
    y, _ = f.apply(params, state, KEY, X, False)
    (again, rngs), _ = f.apply(params, state, KEY, X, True)
    assert_identical(y, again)
    variables = hk_bridge.to_flax(params, state, name="net")
    assert_identical(y, Noise().apply(variables, X, rngs=rngs))


def test_the_params_key_at_init_is_haikus_next():
    params, *_ = run(lambda x: FlaxModule(nn.Dense(2), name="net")(x), X)
    variables = nn.Dense(2).init(next(hk.PRNGSequence(KEY)), X)
    assert_identical(hk_bridge.to_flax(params, {}, name="net"), variables)


def test_rngs_without_params_take_params_from_haiku_at_init():
    key = jax.random.key(5)

    def forward(x):
        return FlaxModule(Noise(), name="net")(
            x, rngs=dict.fromkeys(("dropout", "noise", "late"), key)
        )

    params, _, y, _ = run(forward, X)
    expected = {
        "params": next(hk.PRNGSequence(KEY)),
        "dropout": key,
        "noise": key,
        "late": key,
    }
    variables = Noise().init(expected, X)
    assert_identical(hk_bridge.to_flax(params, {}, name="net"), variables)
    del expected["params"]
    assert_identical(y, Noise().apply(variables, X, rngs=expected))


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_a_bare_key_is_the_params_stream(make):
    forward = lambda x, rngs: FlaxModule(Noise(), name="net")(x, rngs=rngs)
    f = hk.transform_with_state(forward)
    params, state = f.init(None, X, make(3))
    variables = Noise().init(make(3), X)
    assert_identical(hk_bridge.to_flax(params, state, name="net"), variables)
    y, _ = f.apply(params, state, None, X, make(4))
    assert_identical(y, Noise().apply(variables, X, rngs=make(4)))


def test_keys_do_not_depend_on_what_comes_after():
    def forward(x, more):
        y = FlaxModule(Noise(), name="net")(x)
        if more:
            hk.Linear(3)(y + jax.random.normal(hk.next_rng_key(), y.shape))
        return y

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X, True)
    assert_identical(
        f.apply(params, state, KEY, X, True)[0],
        f.apply(params, state, KEY, X, False)[0],
    )


def test_has_rng_is_true_for_every_stream_where_haiku_has_a_key():
    class Asks(nn.Module):
        @nn.compact
        def __call__(self):
            streams = ("params", "dropout", "noise")
            inner = nn.remat(Inner)()()
            return [self.has_rng(stream) for stream in streams], inner

    class Inner(nn.Module):
        def __call__(self):
            return [self.has_rng(stream) for stream in ("params", "dropout")]

    f = hk.transform(lambda: FlaxModule(Asks())())
    params = f.init(KEY)
    assert f.apply(params, KEY) == ([True] * 3, [True] * 2)
    assert f.apply(params, None) == ([False] * 3, [False] * 2)


def test_a_stream_of_any_name_reaches_into_lifted_transforms():
    class Body(nn.Module):
        def __call__(self, carry, _):
            return carry + jax.random.normal(self.make_rng("noise"), carry.shape), None

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            scan = nn.scan(Body, split_rngs={"noise": True}, length=2)
            return nn.remat(Body)()(scan()(x, None)[0], None)[0]

    f = hk.transform(lambda x: FlaxModule(Net(), name="net")(x))
    y = f.apply(f.init(KEY, X), KEY, X)
    assert not jnp.any(y == X)
    assert_identical(y, f.apply({}, KEY, X))
    assert jnp.any(y != f.apply({}, jax.random.key(1), X))


# mutable, capture_intermediates.


@pytest.mark.parametrize(
    "mutable",
    [
        True,
        False,
        "batch_stats",
        [],
        ["batch_stats"],
        {"intermediates", "losses"},
        ("losses", "perturbations"),
        nn.DenyList("params"),
        nn.DenyList(["batch_stats", "last"]),
    ],
    ids=["all", "none", "one", "empty", "list", "set", "tuple", "deny", "deny_list"],
)
@pytest.mark.parametrize(
    "capture", [False, True, lambda module, name: name == "__call__"]
)
def test_mutable_is_as_in_flax(mutable, capture):
    options = {"mutable": mutable, "capture_intermediates": capture}

    train = flax.core.scope.in_filter(mutable, "batch_stats")

    def forward(x):
        return FlaxModule(Sow(), name="net")(x, train, **options)

    params, state, ours, new = run(forward, X)
    variables = hk_bridge.to_flax(params, state, name="net")
    theirs = Sow().apply(variables, X, train, **options)
    assert_identical(ours, theirs)
    stats = dict(theirs[1]) if isinstance(theirs, tuple) else {}
    expected = stats.get("batch_stats", variables["batch_stats"])
    assert_identical(hk_bridge.to_flax({}, new, name="net"), {"batch_stats": expected})


def test_capture_alone_gives_the_output_alone():
    plain = run(lambda x: FlaxModule(Sow(), name="net")(x), X)
    captured = run(
        lambda x: FlaxModule(Sow(), name="net")(x, capture_intermediates=True), X
    )
    assert_identical(captured, plain)


def test_the_result_has_the_same_form_at_init():
    forms = []

    def forward(x):
        net = FlaxModule(Sow(), name="net")
        _, mutated = net(x, mutable=["losses", "batch_stats"])
        forms.append(jax.tree.structure(mutated))
        assert not isinstance(net(x, train=False, mutable=False), tuple)

    run(forward, X)
    assert forms[0] == forms[1]


def test_params_changed_after_init_are_returned_only():
    class Writes(nn.Module):
        @nn.compact
        def __call__(self):
            w = self.variable("params", "w", lambda: jnp.ones([]))
            w.value = w.value + 1.0
            return w.value

    forward = lambda: FlaxModule(Writes(), name="net")(mutable=["params"])
    f = hk.transform(forward)
    params = f.init(KEY)
    y, mutated = f.apply(params, KEY)
    assert float(y) == float(mutated["params"]["w"]) == float(params["net"]["w"]) + 1.0


def test_a_kept_collection_that_is_not_listed_is_untouched():
    def forward(x):
        return FlaxModule(Norm(), name="net")(x, train=True, mutable=["other"])

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    with pytest.raises(flax.errors.ModifyScopeVariableError) as error:
        f.apply(params, state, None, X)
    assert "state['net/batch_stats/BatchNorm_0']['mean']" in "".join(
        error.value.__notes__
    )


def test_a_collection_that_first_appears_after_init_goes_to_the_caller():
    class Late(nn.Module):
        @nn.compact
        def __call__(self, x):
            if not self.is_initializing():
                self.variable("late", "x", lambda: x)
            return nn.Dense(2)(x)

    forward = lambda x: FlaxModule(Late(), name="net")(x, mutable=["late"])
    _, state, (_, mutated), new = run(forward, X)
    assert_identical(mutated, {"late": {"x": X}})
    assert state == new == {}


def test_a_leaf_that_first_appears_after_init_is_not_lost_in_silence():
    class Late(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("stats", "old", lambda: jnp.zeros([]))
            if not self.is_initializing():
                self.variable("stats", "new", lambda: jnp.zeros([]))

    with pytest.raises(hk_bridge.StateStructureError) as error:
        run(lambda x: FlaxModule(Late(), name="net")(x), X)
    for part in (
        "'net'",
        "Late",
        "'stats'",
        "'new'",
        "mutable=['stats']",
        "transient='stats'",
    ):
        assert part in str(error.value)
    state, (_, mutated), new = run(
        lambda x: FlaxModule(Late(), name="net")(x, mutable=["stats"]), X
    )[1:]
    assert sorted(mutated["stats"]) == ["new", "old"]
    assert_identical(new, state)


def test_a_leaf_that_changes_its_structure_is_refused():
    class Grows(nn.Module):
        @nn.compact
        def __call__(self):
            xs = self.variable("memory", "xs", tuple)
            if not self.is_initializing():
                xs.value = (*xs.value, jnp.ones([]))

    with pytest.raises(hk_bridge.StateStructureError) as error:
        run(lambda: FlaxModule(Grows(), name="net")())
    for part in (
        "'memory'",
        "'xs'",
        "PyTreeDef(())",
        "PyTreeDef((*,))",
        "transient='memory'",
    ):
        assert part in str(error.value)


EMPTY = [
    (lambda: jnp.ones([3]), dict, "from PyTreeDef(*) to no leaf"),
    (lambda: {"a": jnp.ones([3])}, lambda: jnp.ones([3]), "a new variable"),
    (dict, lambda: jnp.ones([3]), "a new variable"),
    (dict, lambda: {"a": jnp.ones([3])}, "a new variable"),
]


@pytest.mark.parametrize(("first", "then", "part"), EMPTY)
def test_empty_dicts_are_structure_too(first, then, part):
    class Changes(nn.Module):
        @nn.compact
        def __call__(self):
            value = self.variable("memory", "x", first)
            if not self.is_initializing():
                value.value = then()

    with pytest.raises(hk_bridge.StateStructureError) as error:
        run(lambda: FlaxModule(Changes(), name="net")())
    assert part in str(error.value)
    assert "collection 'memory', path 'x" in str(error.value)


@pytest.mark.parametrize("transient", ["memory", ["memory"], ("memory", "other")])
def test_transient_collections_are_named_outright(transient):
    class Remembers(nn.Module):
        @nn.compact
        def __call__(self, x):
            if self.is_mutable_collection("memory"):
                self.put_variable("memory", "x", x)
            return nn.Dense(2)(x)

    def forward(x):
        return FlaxModule(Remembers(), name="net", transient=transient)(
            x, mutable=["memory"]
        )

    _, state, (_, mutated), new = run(forward, X)
    assert state == new == {}
    assert_identical(mutated, {"memory": {"x": X}})


# Several calls, methods, sharing.


def test_methods_make_what_is_missing():
    def forward(x):
        net = FlaxModule(Autoencoder(), name="net")
        z = net(x, method="encode")
        if hk.running_init():
            assert sorted(net.variables["params"]) == ["encoder"]
        return net(z, method=Autoencoder.decode), net(x)

    params, _, (by_parts, whole), _ = run(forward, X)
    assert sorted(params) == ["net/decoder", "net/encoder"]
    assert_identical(by_parts, whole)


def test_method_of_the_instance():
    def forward(x):
        net = FlaxModule(Autoencoder(), name="net")
        return net(x, method=net.module.encode), net(x, method="encode")

    *_, (one, two), _ = run(forward, X)
    assert_identical(one, two)


def test_a_submodule_as_method():
    variables = Autoencoder().init(KEY, X)

    class Outer(nn.Module):
        inner: nn.Module

        def __call__(self, x):
            return self.inner(x)

    forward = lambda x: FlaxModule(Outer(nn.Dense(3)), name="net")(x, method="inner")
    f = hk.transform(forward)
    variables = Outer(nn.Dense(3)).init(KEY, X)
    params, _ = hk_bridge.to_haiku(variables, name="net")
    assert_identical(f.apply(params, None, X), Outer(nn.Dense(3)).apply(variables, X))


def test_a_bridged_module_closed_over_is_refused_as_haikus_own():
    def forward(x):
        net = FlaxModule(nn.Dense(4), name="net")
        inner = hk.transform(lambda x: net(x))
        return hk.transparent_lift(inner.init)(hk.next_rng_key(), x)

    with pytest.raises(ValueError, match="can't functionally close over"):
        run(forward, X)


def test_inside_layer_stack():
    def forward(x):
        def layer(x):
            return FlaxModule(nn.Dense(4), name="dense")(x)

        return hk.experimental.layer_stack(3, name="stack")(layer)(x)

    params, _, y, _ = run(forward, X)
    (tree,) = params.values()
    assert tree["kernel"].shape == (3, 4, 4)
    x = X
    for i in range(3):
        x = nn.Dense(4).apply({"params": jax.tree.map(lambda w, i=i: w[i], tree)}, x)
    assert jnp.allclose(x, y, atol=1e-6)


# net.module and net.variables.


def test_module_and_variables_are_the_pure_handle():
    def forward(x):
        net = FlaxModule(Norm(), name="net")
        net(x)
        stats = net.variables["batch_stats"]
        batched = jax.vmap(lambda x: net.module.apply(net.variables, x, train=False))
        return stats, batched(x[:, None])

    params, state, (stats, y), new = run(forward, X)
    assert_identical({"batch_stats": stats}, hk_bridge.to_flax({}, new, name="net"))
    variables = hk_bridge.to_flax(params, new, name="net")
    expected = jax.vmap(lambda x: Norm().apply(variables, x, train=False))(X[:, None])
    assert_identical(y, expected)


def test_variables_before_they_exist():
    with pytest.raises(hk_bridge.NotInitializedError) as error:
        run(lambda x: FlaxModule(nn.Dense(2), name="net").variables, X)
    for part in ("'net'", "Dense", "if hk.running_init(): net(x)"):
        assert part in str(error.value)


def test_variables_of_a_module_that_has_none():
    def forward(x):
        net = FlaxModule(nn.Dropout(0.5, deterministic=True))
        net(x)
        return net.variables

    assert run(forward, X)[2] == {}


def test_haikus_own_views():
    def forward(x):
        net = FlaxModule(Norm(), name="net")
        net(x)
        return (
            net.name,
            net.module_name,
            dict(net.params_dict()),
            dict(net.state_dict()),
            repr(net),
        )

    params, _, (name, module_name, params_dict, state_dict, text), _ = run(forward, X)
    assert (name, module_name) == ("net", "net")
    assert sorted(params_dict) == sorted(f"{m}/{k}" for m in params for k in params[m])
    assert sorted(state_dict) == [
        "net/batch_stats/BatchNorm_0/mean",
        "net/batch_stats/BatchNorm_0/var",
    ]
    assert text.startswith("FlaxModule(")
    assert "Norm" in text
    assert "'net'" in text


# Threads, copies, leaks.


def test_threads_do_not_see_each_other():
    def work(seed):
        key = jax.random.key(seed)
        f = hk.transform_with_state(lambda x: FlaxModule(Sow(), name="net")(x))
        params, state = f.init(key, X)
        return params, f.apply(params, state, key, X)

    expected = [work(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert_identical(list(pool.map(work, range(4))), expected)


def test_a_network_pickles():
    module = Norm()

    def forward(x):
        return FlaxModule(module, name="net")(x)

    params, state, y, _ = run(forward, X)
    f = hk.transform_with_state(cloudpickle.loads(cloudpickle.dumps(forward)))
    assert_identical(f.apply(params, state, None, X)[0], y)


def test_a_configuration_copies():
    module = copy.deepcopy(Norm())
    assert module == Norm()
    assert_identical(
        run(lambda x: FlaxModule(module)(x), X), run(lambda x: FlaxModule(Norm())(x), X)
    )


def test_a_call_keeps_nothing_alive():
    f = hk.transform_with_state(lambda x: FlaxModule(Norm(), name="net")(x))
    params, state = f.init(KEY, X)
    gc.collect()
    gc.disable()
    try:
        kept = [weakref.ref(leaf) for leaf in jax.tree.leaves((params, state))]
        f.apply(params, state, None, X)
        del params, state
        assert [ref() for ref in kept] == [None] * len(kept)
    finally:
        gc.enable()


def test_no_tracer_leaks():
    def forward(x):
        return FlaxModule(Sow(), name="net")(FlaxModule(Noise())(x)[:, :4])

    f = hk.transform_with_state(forward)
    with jax.checking_leaks():
        params, state = jax.jit(f.init)(KEY, X)
        jax.jit(f.apply)(params, state, KEY, X)


# Shapes are checked as in Flax, whose way of doing so is remembered.


def test_the_check_of_a_shape_knows_what_an_initialiser_closes_over():
    def init_of(n):
        return lambda key: jnp.ones([n])

    class Closes(nn.Module):
        n: int

        @nn.compact
        def __call__(self):
            own = self.param("own", lambda key: jnp.ones([self.n]))
            return self.param("w", init_of(self.n)) + own

    for n in (2, 3, 2):
        f = hk.transform(lambda n=n: FlaxModule(Closes(n), name="net")())
        params = {"net": {"w": jnp.zeros([n]), "own": jnp.zeros([n])}}
        assert f.apply(params, None).shape == (n,)
        for name in ("w", "own"):
            wrong = {"net": {**params["net"], name: jnp.zeros([n + 1])}}
            with pytest.raises(flax.errors.ScopeParamShapeError, match=name):
                f.apply(wrong, None)


def test_an_initialiser_that_cannot_be_remembered_is_evaluated_as_in_flax():
    table = jnp.ones([3])  # an array has no hash

    class Closes(nn.Module):
        @nn.compact
        def __call__(self):
            return self.param("w", lambda key: table + 0.0)

    f = hk.transform(lambda: FlaxModule(Closes(), name="net")())
    assert f.apply({"net": {"w": table}}, None).shape == (3,)
    with pytest.raises(flax.errors.ScopeParamShapeError):
        f.apply({"net": {"w": jnp.ones([4])}}, None)


def test_nothing_is_remembered_of_tracers():
    def forward(x):
        class Closes(nn.Module):
            @nn.compact
            def __call__(self):
                return self.param("w", lambda key: jnp.zeros_like(x))

        return FlaxModule(Closes(), name="net")()

    f = hk.transform(forward)
    with jax.checking_leaks():
        params = jax.jit(f.init)(KEY, X)
        jax.jit(f.apply)(params, None, X)


def test_a_sow_of_the_users_own_is_seen():
    class Logs(nn.Module):
        def sow(self, value):
            return super().sow("logs", "value", value)

        @nn.compact
        def __call__(self, x):
            self.sow(x)
            return nn.Dense(2)(x)

    forward = lambda x: FlaxModule(Logs(), name="net")(x, mutable=["logs"])
    _, state, (_, mutated), new = run(forward, X)
    assert state == new == {}
    assert_identical(mutated, {"logs": {"value": (X,)}})


@pytest.mark.parametrize("lift", [lambda cls: cls, nn.remat, nn.jit])
def test_sowing_into_a_module_in_a_field_is_seen(lift):
    class Holds(nn.Module):
        inner: nn.Module

        @nn.compact
        def __call__(self, x):
            self.inner.sow("logs", "x", x)  # before it runs, if ever
            return x

    class Outer(nn.Module):
        inner: nn.Module

        @nn.compact
        def __call__(self, x):
            self.inner.inner.sow("logs", "x", x)
            return self.inner(x)

    make = lambda: lift(Outer)(Holds(nn.Dense(2)))
    forward = lambda x: FlaxModule(make(), name="net")(x)
    _, state, _, new = run(forward, X)
    assert state == new == {}


def test_who_sows_elsewhere_is_not_the_modules_doing():
    class Sows(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("stats", "x", x)
            return x

    class Counts(nn.Module):
        @nn.compact
        def __call__(self, x):
            count = self.variable("stats", "count", jnp.zeros, ())
            count.value += 1.0
            x = nn.remat(nn.Dense)(2)(x)
            return Sows().apply({}, x, mutable=["stats"])[0]  # with its own variables

    _, state, _, new = run(lambda x: FlaxModule(Counts(), name="net")(x), X)
    assert_identical(state, {"net/stats": {"count": jnp.ones(())}})
    assert_identical(new, {"net/stats": {"count": jnp.full((), 2.0)}})


def test_no_trace_of_before_hides_a_sow_or_a_call_in_nn_jit():
    class Inner(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.sow("trace", "x", x)
            return nn.Dense(4, name="dense")(x)

    jitted = nn.jit(Inner)
    f = hk.transform_with_state(lambda x: FlaxModule(jitted(), name="net")(x))
    for _ in range(20):
        params, state = f.init(KEY, X)
        assert state == {}
    seen = []

    def interceptor(next_fun, args, kwargs, context):
        if context.method_name != "__init__":
            seen.append(context.module.module_name)
        return next_fun(*args, **kwargs)

    f.apply(params, state, None, X)
    with hk.intercept_methods(interceptor):
        f.apply(params, state, None, X)
    assert "net/dense" in seen


@pytest.mark.parametrize("norm", [nn.WeightNorm, nn.SpectralNorm])
def test_children_made_before_the_keys_of_a_lifted_transform_are_drawn(norm):
    layers = nn.Sequential([nn.Dense(3), nn.Dense(2)])
    kwargs = {"update_stats": True} if norm is nn.SpectralNorm else {}
    forward = lambda x: FlaxModule(norm(layers), name="net")(x, **kwargs)
    params, state = hk.transform_with_state(forward).init(KEY, X)
    key = next(hk.PRNGSequence(KEY))
    expected = norm(layers).init(key, X, **kwargs)
    assert_identical(hk_bridge.to_flax(params, state, name="net"), expected)


def test_initialisers_whose_closure_has_no_end_or_no_content():
    def recursive(key, n):
        return jnp.ones([n]) if n <= 3 else recursive(key, n - 1)

    def half_made(key, n):
        return jnp.ones([n]) if n <= 3 else later(key, n - 1)

    class Closes(nn.Module):
        @nn.compact
        def __call__(self):
            return self.param("a", recursive, 3) + self.param("b", half_made, 3)

    f = hk.transform(lambda: FlaxModule(Closes(), name="net")())
    assert f.apply(f.init(KEY), None).shape == (3,)
    with pytest.raises(flax.errors.ScopeParamShapeError):
        f.apply({"net": {"a": jnp.ones([3]), "b": jnp.ones([4])}}, None)
    later = recursive
    assert later(None, 4).shape == (3,)


def test_initialisers_take_keywords_of_any_name():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            init = lambda key, *, col, scope, parameter, path: col + scope + parameter
            w = self.param("w", init, col=x, scope=x, parameter=x, path=("a", "b"))
            return x + w

    f = hk.transform(lambda x: FlaxModule(Net(), name="net")(x))
    x = jnp.ones([2])
    params = f.init(jax.random.key(0), x)
    assert_identical(f.apply(params, None, x), 4 * x)
