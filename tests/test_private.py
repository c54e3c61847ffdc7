"""Private symbols of other libraries: what happens when one is gone."""

import ast
import configparser
import pathlib
import subprocess
import sys
import textwrap

import pytest

import hk_bridge
from hk_bridge import _private

PACKAGE = pathlib.Path(hk_bridge.__file__).parent
SETUP = PACKAGE.parent / "setup.cfg"


def asked_for(function):
    """The symbols that the package asks for by this function, in its files."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == function:
                strings = [arg.value for arg in node.args]
                symbols = strings if function == "_private.require" else strings[:1]
                found.update(dict.fromkeys(symbols, strings[-1]))
    return found


OPTIONAL = asked_for("_private.optional")
REQUIRED = asked_for("_private.require")


def run(hidden, code, *options):
    """What a new process prints in which these symbols are gone."""
    start = f"from hk_bridge import _private; _private.hidden.update({hidden!r})"
    code = f"{start}\n{textwrap.dedent(code)}"
    done = subprocess.run(
        [sys.executable, *options, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_all_symbols_are_there():
    assert len(OPTIONAL) > 8
    assert len(REQUIRED) > 20
    assert {s for s in {*OPTIONAL, *REQUIRED} if _private.find(s) is None} == set()


@pytest.mark.parametrize("symbol", REQUIRED)
def test_what_is_required_is_an_error_with_the_line_to_write(symbol, monkeypatch):
    monkeypatch.setattr(_private, "hidden", {symbol})
    name, oldest, newest, version = _private._release(symbol)
    with pytest.raises(ImportError) as caught:
        _private.require(*REQUIRED)
    text = str(caught.value)
    assert f"cannot do without {symbol}, a private part that {name} {version}" in text
    assert f"works with {name} {oldest} to {newest}" in text
    assert f"pip install '{name}=={newest}'" in text


@pytest.mark.parametrize("symbol", OPTIONAL)
def test_what_is_optional_is_a_warning_with_the_line_to_write(symbol, monkeypatch):
    monkeypatch.setattr(_private, "hidden", {symbol})
    name, oldest, newest, version = _private._release(symbol)
    with pytest.warns(RuntimeWarning) as caught:
        assert _private.optional(symbol, OPTIONAL[symbol]) is None
    (text,) = [str(warning.message) for warning in caught]
    assert f"does without {symbol}, a private part that {name} {version}" in text
    assert f"takes longer: {OPTIONAL[symbol]}." in text
    assert f"pip install '{name}=={newest}'" in text
    assert f"fast with {name} {oldest} to {newest}" in text


@pytest.mark.parametrize(
    "symbol", ["flax.core.scope:LazyRng", "haiku._src.base:current_frame"]
)
def test_the_error_comes_with_flax_module_and_not_before(symbol):
    code = """
        import hk_bridge
        params, state = hk_bridge.to_haiku({"params": {"w": 1}}, name="net")
        assert hk_bridge.to_flax(params, state, name="net") == {"params": {"w": 1}}
        for name in ("FlaxModule", "wrap", "nn", "FlaxModule"):
            try:
                getattr(hk_bridge, name)
            except ImportError as error:
                print(str(error).partition(",")[0])
        """
    found, _ = run({symbol}, code)
    assert found.splitlines() == [f"hk_bridge cannot do without {symbol}"] * 4


# What is run with symbols gone: nothing that comes out may differ.
LAWS = """
    import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp
    import catalogue, hk_bridge, laws
    from flax import errors
    from hk_bridge import FlaxModule
    from hk_bridge.testing import check

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x, *_):
            r = self.variable("stats", "r", jnp.full, [], 0.5)
            n = self.variable("stats", "n", jnp.zeros, [])
            if not self.is_initializing():
                n.value += 1
            x = nn.Dropout(0.5, deterministic=False)(nn.Dense(4)(x))
            return x * r.value

    class Step(Block):
        @nn.compact
        def __call__(self, x, *_):
            return super().__call__(x), None

    X = jnp.ones([2, 4])
    axes = {"variable_axes": {True: 0}, "split_rngs": {True: True}}
    lifts = {
        "plain": Block,
        "remat": nn.remat(Block),
        "jit": nn.jit(nn.remat(Block)),
        "vmap": nn.vmap(Block, in_axes=None, axis_size=2, **axes),
        "scan": nn.scan(Step, length=2, **axes),
    }
    for name, lifted in lifts.items():
        if name in ("plain", "jit"):
            check(lifted(), X, name="net")
        puts = []

        def forward(x):
            look = lambda put, value, context: puts.append(context.name) or put(value)
            with hk.custom_setter(look):
                net = FlaxModule(lifted(), name="net")
                return net(x, rngs={"params": KEY, "dropout": KEY})

        KEY = jax.random.key(0)
        f = hk.transform_with_state(forward)
        params, state = f.init(None, X)
        puts.clear()
        _, after = f.apply(params, state, None, X)
        assert set(puts) == {"n"}, (name, puts)
        (module_name,) = state
        assert after[module_name]["r"] is state[module_name]["r"], name

    for case in [case for case in catalogue.CASES if not case.skip][::50]:
        laws.same_init(case)
        laws.same_program(case)

    names = ["LayerNorm2D", "Dense_1", "_A", "HTTPServer", "A1", "MLP"]
    print([hk_bridge._haiku.camel_to_snake(name) for name in names])

    def raised(kind, f):
        try:
            f()
        except kind as error:
            return str(error)
        raise AssertionError("No error came.")

    net = lambda method: hk.transform(
        lambda: FlaxModule(nn.Dense(3), name="net")(X, method=method)
    ).init(jax.random.key(0))
    native = lambda method: nn.Dense(3).init(jax.random.key(0), X, method=method)
    for method in (3, lambda: 3):
        kind = errors.ApplyModuleInvalidMethodError
        ours, theirs = [raised(kind, lambda: f(method)) for f in (net, native)]
        assert ours == theirs

    class NoSuper(nn.Module):
        def __post_init__(self):
            pass

    bad = hk.transform(lambda: FlaxModule(NoSuper(), name="net")(X)).init
    assert "super" in raised(errors.IncorrectPostInitOverrideError, lambda: bad(None))

    stateful = hk.transform(lambda: FlaxModule(Block(), name="net")(X)).init
    assert "hk.transform_with_state" in raised(Exception, lambda: stateful(KEY))

    shared = lambda x: sum(FlaxModule(nn.Dense(4), name="a")(x) for _ in range(3))
    with hk_bridge.share_traces():
        print(jax.jit(hk.transform(shared).init)(KEY, X).keys())
    """


def expected():
    names = ["layer_norm2_d", "dense_1", "_a", "http_server", "a1", "mlp"]
    return [str(names), "dict_keys(['a', 'a_1', 'a_2'])"]


@pytest.mark.parametrize("libraries", ["flax", ("haiku", "jax")], ids=str)
def test_without_what_is_optional_all_is_as_ever(libraries):
    hidden = {symbol for symbol in OPTIONAL if symbol.startswith(libraries)}
    found, warned = run(hidden, LAWS, "-W", "always::RuntimeWarning")
    assert found.splitlines() == expected()
    for symbol in hidden:
        assert warned.count(f"hk_bridge does without {symbol}, ") == 1


@pytest.mark.skipif(not SETUP.exists(), reason="only in the checkout")
def test_the_oldest_releases_are_those_of_the_extra():
    config = configparser.ConfigParser()
    config.read(SETUP)
    pinned = config["options.extras_require"]["floor"].split()
    for name, oldest, _ in _private.TESTED.values():
        assert f"{name}=={oldest}" in pinned
