"""`wrap`, and every layer of `hk_bridge.nn` under the laws, through its class."""

import dataclasses
import functools
import inspect
import pickle
import subprocess
import sys
import textwrap

import catalogue
from catalogue import Case
from catalogue import array
import catalogue_linen
from flax import nnx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import jmp
from laws import same_program
import pytest

import hk_bridge
from hk_bridge.testing import assert_identical

KEY = jax.random.key(0)
X = array(2, 4)


def layers():
    """The layer classes of linen, by name."""
    return {
        name: cls
        for name, cls in vars(nn).items()
        if isinstance(cls, type)
        and issubclass(cls, nn.Module)
        and cls not in (nn.Module, nn.RNNCellBase)
    }


def through_class(module, *, name):
    """`module` built by its class in `hk_bridge.nn`, called in linen's order."""
    fields = {
        f.name: getattr(module, f.name)
        for f in dataclasses.fields(module)
        if f.init and f.name not in ("parent", "name")
    }
    if isinstance(module, nn.GroupNorm) and fields["group_size"] is not None:
        del fields["num_groups"]
    net = getattr(hk_bridge.nn, type(module).__name__)(**fields, name=name)
    assert net.module == module
    if not isinstance(module, nn.RNNCellBase):
        return net

    def linen_order(carry, inputs, **options):
        result = net(inputs, carry, **options)
        if options.get("mutable"):
            (output, carry), mutated = result
            return (carry, output), mutated
        return result[::-1]

    return linen_order


CONTRACTION = (array(2, 4), array(4, 3), (((1,), (0,)), ((), ())))
CASES = [
    *catalogue.CASES,
    *catalogue_linen.CASES,
    # Others make these for themselves; here each is called by the user.
    Case("fp8_dot_general", lambda: nn.Fp8DirectDotGeneralOp(), CONTRACTION),
    Case("nanoo_dot_general", lambda: nn.NANOOFp8DotGeneralOp(), CONTRACTION),
    Case("fp8_einsum", lambda: nn.Fp8Einsum(), ("ab,bc->ac", *CONTRACTION[:2])),
]
CASES = [
    dataclasses.replace(case, bridge=through_class)
    for case in CASES
    if type(case.make()) in set(layers().values()) - {nn.SelfAttention}
    and case.method is None
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_program_is_linens(case):
    same_program(case)


def test_every_layer_is_there_and_under_the_laws():
    assert set(hk_bridge.nn.__all__) == set(layers())
    tested = {type(case.make()) for case in CASES}
    # These warn of their age when they are built, and warnings are errors here.
    deprecated = {nn.SelfAttention, nn.MultiHeadAttention, nn.Fp8DotGeneralOp}
    assert set(layers().values()) - tested - deprecated == set()


@pytest.mark.parametrize("name", sorted(set(layers()) - {"GroupNorm"}))
def test_signatures_are_linens(name):
    ours = dict(inspect.signature(getattr(hk_bridge.nn, name)).parameters)
    theirs = dict(inspect.signature(layers()[name]).parameters)
    del theirs["parent"]
    assert ours.pop("name").kind is inspect.Parameter.KEYWORD_ONLY
    theirs.pop("name")
    for key, parameter in theirs.items():
        annotation = parameter.annotation  # may mean something in linen's file alone
        if isinstance(annotation, str) or "ForwardRef" in str(annotation):
            theirs[key] = parameter.replace(annotation=ours[key].annotation)
    assert list(ours.items()) == list(theirs.items())


@pytest.mark.parametrize("name", sorted(layers()))
def test_classes_look_like_haikus(name):
    cls = getattr(hk_bridge.nn, name)
    assert issubclass(cls, hk.Module)
    assert cls.flax_class is layers()[name]
    assert cls.__name__ == layers()[name].__name__
    assert cls.__module__ == "hk_bridge.nn"
    assert pickle.loads(pickle.dumps(cls)) is cls
    text = inspect.getdoc(cls)
    assert ">>>" not in text or name == "GroupNorm"
    assert "Haiku params" in text or name == "GroupNorm"


def run(forward, *args, rng=KEY):
    f = hk.transform_with_state(forward)
    params, state = f.init(rng, *args)
    return params, *f.apply(params, state, None, *args)


# A class of the user's.


@hk_bridge.wrap
class Vae(nn.Module):
    """A small autoencoder.

    Example::

      >>> this_is_not_run

    Attributes:
      width: of the code.
    """

    width: int = 3
    kind = "vae"

    def setup(self):
        self.encoder = nn.Dense(self.width)
        self.decoder = nn.Dense(4)

    def encode(self, x, *, scale=1.0):
        """The code of `x`."""
        return self.encoder(x) * scale

    def decode(self, z):
        return self.decoder(z)

    def __call__(self, x):
        return self.decode(self.encode(x))

    @staticmethod
    def double(x):
        return 2 * x

    @classmethod
    def small(cls, **kwargs):
        return cls(width=1, **kwargs)

    @property
    def twice(self):
        return 2 * self.width

    @nn.nowrap
    def sizes(self):
        return [self.width, 4]


def test_a_decorated_class():
    def forward(x):
        net = Vae(width=2, name="net")
        assert isinstance(net, Vae)
        assert isinstance(net, hk.Module)
        assert isinstance(net.module, Vae.flax_class)
        assert repr(net) == "Vae(width=2, name='net')"
        z = net.encode(x, scale=2.0)
        assert net.double(2) == Vae.double(2) == 4
        assert net.kind == Vae.kind == "vae"
        assert net.width == 2
        assert net.twice == 4
        assert net.sizes() == [2, 4]
        assert isinstance(Vae.small(name="other"), Vae)
        return net(x), z, net.decode(z)

    params, (y, z, decoded), _ = run(forward, X)
    assert sorted(params) == ["net/decoder", "net/encoder"]
    variables = hk_bridge.to_flax(params, {}, name="net")
    module = Vae.flax_class(width=2)
    assert_identical(y, module.apply(variables, X))
    assert_identical(z, module.apply(variables, X, scale=2.0, method="encode"))
    assert_identical(decoded, module.apply(variables, z, method="decode"))


@hk_bridge.wrap
class Sized(nn.Module):
    """Has private names, and properties that read them."""

    width: int = 3
    _times: int = 2
    _SIZES = {"small": 5}

    @classmethod
    def of(cls, size, **kwargs):
        return cls(width=cls._SIZES[size] + cls._more(), **kwargs)

    @staticmethod
    def _more():
        return 1

    @property
    def total(self):
        """The width and the rest."""
        return self.width * self._times

    @property
    def kernel(self):
        return self.variables["params"]["layer"]["kernel"]

    @functools.cached_property
    def half(self):
        return self.total / 2

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.width, name="layer")(x)


def test_private_names_and_properties():
    def forward(x):
        net = Sized.of("small", name="net")
        assert (net.width, net.total, net.half) == (6, 12, 6.0)
        with pytest.raises(AttributeError, match="no_such_thing"):
            _ = net.no_such_thing
        if hk.running_init():
            with pytest.raises(ValueError, match="unbound") as error:
                _ = net.kernel
            assert "Call it once before" in error.value.__notes__[0]
        net(x)
        return net.kernel

    params, kernel, _ = run(forward, X)
    assert_identical(kernel, params["net/layer"]["kernel"])
    assert Sized.total.__doc__ == "The width and the rest."
    assert Sized._SIZES == {"small": 5}


def test_what_haiku_needs_wins_over_names_of_flax():
    class Taken(nn.Module):
        module = 1
        _given = 2
        flax_class = 3

        @property
        def _called(self):
            return 4

        @property
        def _submodules(self):
            return 5

        @property
        def own(self):
            raise ValueError("of the user's own")

        @nn.compact
        def __call__(self, x):
            return nn.Dense(3)(x)

    cls = hk_bridge.wrap(Taken)
    assert cls.flax_class is Taken

    def forward(x):
        net = cls(name="net")
        with pytest.raises(ValueError, match="of the user's own"):
            _ = net.own
        y = net(x)
        with pytest.raises(ValueError, match="of the user's own"):
            _ = net.own
        assert type(net.module) is Taken
        return y

    params, *_ = run(forward, X)
    assert list(params) == ["net/Dense_0"]


def test_a_cell_takes_what_else_its_step_takes():
    @hk_bridge.wrap
    class Cell(nn.RNNCellBase):
        num_feature_axes = 1

        @nn.compact
        def __call__(self, carry, inputs, scale, train=False):
            y = scale * nn.Dense(4)(inputs) + carry
            return y, -y if train else y

        @nn.nowrap
        def initialize_carry(self, rng, input_shape):
            return jnp.zeros([*input_shape[:-1], 4])

    def forward(x):
        cell = Cell(name="cell")
        return cell(x, jnp.zeros([2, 4]), 2.0, train=True)

    params, (y, state), _ = run(forward, X)
    variables = hk_bridge.to_flax(params, {}, name="cell")
    zeros = jnp.zeros([2, 4])
    expected = Cell.flax_class().apply(variables, zeros, X, 2.0, train=True)
    assert_identical((state, y), expected)


def test_annotations_that_nobody_can_read_stay():
    class Net(nn.Module):
        width: "Whole" = 3  # noqa: F821

    wrapped = hk_bridge.wrap(Net)
    assert inspect.signature(wrapped).parameters["width"].annotation == "Whole"


def test_the_looks_of_a_decorated_class():
    assert str(inspect.signature(Vae)) == "(width: int = 3, *, name: str | None = None)"
    assert list(inspect.signature(Vae.encode).parameters) == [
        "self", "x", "scale", "rngs", "mutable", "capture_intermediates",
    ]  # fmt: skip
    assert "method" in inspect.signature(Vae.__call__).parameters
    assert Vae.encode.__doc__ == "The code of `x`."
    assert "width: of the code." in Vae.__doc__
    assert "this_is_not_run" not in Vae.__doc__
    assert "Example" not in Vae.__doc__
    assert "`vae`" in Vae.__doc__
    assert pickle.loads(pickle.dumps(Vae)) is Vae
    assert "class Vae(nn.Module)" in inspect.getsource(Vae)


def test_keywords_of_the_call():
    def forward(x):
        dropout = hk_bridge.nn.Dropout(0.5)
        norm = hk_bridge.nn.BatchNorm(use_running_average=False, name="norm")
        dropped = dropout(x, deterministic=False, rngs={"dropout": KEY})
        return dropped, norm(x, mutable=["batch_stats"], capture_intermediates=True)

    _, (dropped, (y, mutated)), state = run(forward, X)
    dropout = nn.Dropout(0.5, deterministic=False)
    assert_identical(dropped, dropout.apply({}, X, rngs={"dropout": KEY}))
    assert_identical(mutated["intermediates"]["__call__"], (y,))
    assert_identical(mutated["batch_stats"], state["norm/batch_stats"])


def test_variables_and_transient():
    given = {"params": {"kernel": jnp.ones([4, 2]), "bias": jnp.ones([2])}}
    net = lambda x: hk_bridge.nn.Dense(2, variables=given, transient="x", name="net")(x)
    params, *_ = run(net, X, rng=None)
    assert_identical(params, {"net": given["params"]})


def test_wrong_arguments():
    for build in (
        lambda: hk_bridge.nn.Dense(featurs=3),
        lambda: hk_bridge.nn.Dense(),
        lambda: hk_bridge.nn.Dense(3, parent=None),
    ):
        with pytest.raises(TypeError):
            hk.transform(build).init(None)


@pytest.mark.parametrize("given", [3, jnp.sin, hk.Linear, nn.Dense(3), None])
def test_what_is_no_flax_class(given):
    with pytest.raises(
        hk_bridge.ModuleTypeError, match="wrap needs a flax.linen.Module"
    ):
        hk_bridge.wrap(given)


# Clashes.


class Clash(nn.Module):
    module: int = 1
    transient: int = 2
    module_name: str = "mine"

    @nn.compact
    def __call__(self, x):
        return nn.Dense(self.transient)(x)

    def params_dict(self):
        return "flax's"


def test_haikus_names_win_over_flaxs():
    wrapped = hk_bridge.wrap(Clash)

    def forward(x):
        net = wrapped(module=5, transient=3, module_name="other", name="net")
        y = net(x)
        assert net.module == Clash(5, 3, "other")
        assert net.module.module == 5
        assert net.module_name == net.name == "net"
        assert net.transient == 3
        assert set(net.params_dict()) == {"net/Dense_0/bias", "net/Dense_0/kernel"}
        assert net(method="params_dict") == "flax's"
        assert set(net.variables) == {"params"}
        return y

    assert run(forward, X)[1].shape == (2, 3)


# Subclasses.


class Doubled(hk_bridge.nn.Dense):
    def __init__(self, features, name=None):
        super().__init__(features, use_bias=False, name=name)
        self.inner = hk.Linear(features)

    def __call__(self, x):
        return 2.0 * super().__call__(x) + self.inner(x)


class Wide(nn.Dense):
    """A subclass on Flax's side."""

    def wide(self):
        return self.features * 2


def test_subclasses_of_either_side():
    def forward(x):
        return Doubled(3)(x), hk_bridge.wrap(Wide)(3).wide(), hk_bridge.wrap(Wide)(3)(x)

    params, (y, wide, _), _ = run(forward, X)
    assert sorted(params) == ["doubled", "doubled/~/linear", "wide_1"]
    kernel, inner = params["doubled"]["kernel"], params["doubled/~/linear"]
    assert jnp.allclose(
        y, 2.0 * X @ kernel + X @ inner["w"] + inner["b"][None], atol=1e-6
    )
    assert wide == 6


def test_policies_go_by_class():
    policy = jmp.get_policy("params=float32,compute=bfloat16,output=float32")
    hk.mixed_precision.set_policy(hk_bridge.nn.Dense, policy)
    try:
        seen = []

        def spy(x):
            seen.append(x.dtype)
            return x

        def forward(x):
            dense = hk_bridge.nn.Dense(3, kernel_init=nn.initializers.ones)
            norm = hk_bridge.nn.LayerNorm()
            with hk.custom_getter(lambda next_getter, v, _: spy(next_getter(v))):
                return norm(dense(x))

        _, y, _ = run(forward, X)
        assert y.dtype == jnp.float32
        assert seen[-4:] == [jnp.bfloat16] * 2 + [jnp.float32] * 2
    finally:
        hk.mixed_precision.clear_policy(hk_bridge.nn.Dense)


# Recurrent cells.

CELLS = ["LSTMCell", "OptimizedLSTMCell", "GRUCell", "MGUCell", "SimpleCell"]


@pytest.mark.parametrize("unroll", [hk.dynamic_unroll, hk.static_unroll])
@pytest.mark.parametrize("name", CELLS)
def test_cells_are_cores(name, unroll):
    xs = array(5, 2, 4)

    def forward(xs):
        cell = getattr(hk_bridge.nn, name)(3)
        assert isinstance(cell, hk.RNNCore)
        return unroll(cell, xs, cell.initial_state(2))

    params, (ys, state), _ = run(forward, xs)
    (top,) = {module_name.split("/")[0] for module_name in params}
    variables = hk_bridge.to_flax(params, {}, name=top)
    cell = getattr(nn, name)(3)
    carry = cell.initialize_carry(KEY, (2, 4))
    for i in range(5):
        carry, y = cell.apply(variables, carry, xs[i])
        # A scan is compiled as a whole, a step by itself.
        assert jnp.allclose(ys[i], y, atol=1e-6)
    assert jax.tree.structure(state) == jax.tree.structure(carry)


def test_initial_states():
    def forward():
        cell = hk_bridge.nn.LSTMCell(3)
        key, _ = hk.maybe_get_rng_sequence_state()
        one, two = cell.initial_state(None), cell.initial_state(2)
        assert hk.maybe_get_rng_sequence_state()[0] is key  # none was drawn
        random = hk_bridge.nn.GRUCell(3, carry_init=nn.initializers.normal())
        return one, two, random.initial_state(2), cell.initialize_carry(KEY, (2, 4))

    one, two, random, native = hk.transform(forward).apply({}, KEY)
    assert_identical(one, (jnp.zeros(3), jnp.zeros(3)))
    assert_identical(two, native)
    assert jnp.all(random != 0.0)


def test_a_state_that_depends_on_more_than_the_batch():
    cell = lambda: hk_bridge.nn.ConvLSTMCell(3, (2, 2)).initial_state(2)
    with pytest.raises(ValueError, match="initialize_carry"):
        hk.transform(cell).init(KEY)


# NNX.


class Mlp(nnx.Module):
    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(4, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.dropout(self.norm(self.linear(x)))

    def features(self, x):
        return self.linear(x)


def test_nnx_classes():
    wrapped = hk_bridge.wrap(Mlp)
    assert list(inspect.signature(wrapped).parameters) == ["width", "name"]

    def forward(x):
        net = wrapped(width=3)
        return net(x), net.features(x)

    f = hk.transform_with_state(forward)
    params, state = f.init(KEY, X)
    assert sorted(params) == ["mlp/linear", "mlp/norm"]
    assert sorted(state) == ["mlp/batch_stats/norm"]
    (y, features), new = f.apply(params, state, KEY, X)
    assert jnp.any(y == 0.0)
    linear = params["mlp/linear"]
    assert_identical(features, X @ linear["kernel"] + linear["bias"][None])
    mean = new["mlp/batch_stats/norm"]["mean"]
    assert jnp.allclose(mean, 0.01 * features.mean(0), atol=1e-6)


# Classes without a call.


class Silent(nn.Module):
    @nn.compact
    def run(self, x):
        return nn.Dense(3)(x)


class Speaks(Silent):
    def __call__(self, x):
        return self.run(x)


class NativeSilent(hk.Module):
    def run(self, x):
        return hk.Linear(3)(x)


def test_a_class_without_a_call_cannot_be_called():
    def forward(x):
        net, speaks = hk_bridge.wrap(Silent)(name="a"), hk_bridge.wrap(Speaks)(name="b")
        assert not callable(net)
        assert callable(speaks)
        assert isinstance(speaks, hk_bridge.FlaxModule)
        assert isinstance(net, hk.Module)
        for silent in (net, NativeSilent()):
            with pytest.raises(TypeError, match="Silent' object is not callable"):
                hk.Sequential([silent])(x)
        y = net.run(x)
        assert set(net.variables["params"]) == {"Dense_0"}
        assert set(net.params_dict()) == {"a/Dense_0/kernel", "a/Dense_0/bias"}
        return y, speaks(x)

    run(forward, X)


def test_an_nnx_class_without_a_call_cannot_be_called():
    class Net(nnx.Module):
        def __init__(self, *, rngs):
            self.linear = nnx.Linear(4, 3, rngs=rngs)

        def run(self, x):
            return self.linear(x)

    def forward(x):
        net = hk_bridge.wrap(Net)(name="net")
        assert not callable(net)
        return net.run(x)

    assert run(forward, X)[1].shape == (2, 3)


# Static tools.


def test_mypy_knows_the_constructors(tmp_path):
    source = """
        import flax.linen as nn
        import hk_bridge

        @hk_bridge.wrap
        class Net(nn.Module):
            width: int

        dense = hk_bridge.nn.Dense(features=3, name="a")
        print(dense.module, dense(1, mutable=[]), Net(width=3, name="b").module)
        hk_bridge.nn.Dense(featurs=3)
        hk_bridge.nn.GroupNorm(num_group=3)
        Net(widht=3)
    """
    path = tmp_path / "user.py"
    path.write_text(textwrap.dedent(source))
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        str(path),
    ]
    lines = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout
    errors = [line for line in lines.splitlines() if ": error:" in line]
    assert [line.split(":")[1] for line in errors] == ["11", "12", "13"], lines
    for line, word in zip(errors, ["featurs", "num_group", "widht"], strict=True):
        assert f'Unexpected keyword argument "{word}"' in line
