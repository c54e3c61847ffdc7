"""The public names are there, and nothing is imported before it is asked for."""

import pickle
import pydoc
import subprocess
import sys

import pytest

import hk_bridge


def run(code):
    """What a new process prints; it may import nothing before `code` does."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


LOADED = "print(sorted({'flax', 'haiku', 'jax', 'numpy'} & set(sys.modules)))"


@pytest.mark.parametrize(
    "code",
    [
        "import sys, hk_bridge",
        "import sys, hk_bridge; hk_bridge.VariablesError; dir(hk_bridge)",
        "import sys, hk_bridge\n"
        "variables = {'params': {'a': {'w': 1.0}}}\n"
        "params, state = hk_bridge.to_haiku(variables, name='net')\n"
        "assert params == {'net/a': {'w': 1.0}}, params\n"
        "back = hk_bridge.to_flax(params, state, name='net')\n"
        "assert back == variables, back",
        "import sys\nfrom hk_bridge import to_flax, to_haiku, VariablesError\n"
        "try:\n    to_haiku({'kernel': 1.0}, name='net')\n"
        "except VariablesError:\n    pass",
    ],
    ids=["import", "errors", "conversion", "from"],
)
def test_conversion_loads_no_framework(code):
    assert run(f"{code}\n{LOADED}") == "[]"


def test_a_frozen_dict_is_a_level_once_flax_is_there():
    code = (
        "import hk_bridge\n"
        "hk_bridge.to_haiku({'params': {'w': 1}}, name='net')\n"
        "from flax.core import FrozenDict\n"
        "tree = FrozenDict({'params': {'a': {'w': 1}}})\n"
        "print(hk_bridge.to_haiku(tree, name='net')[0])"
    )
    assert run(code) == "{'net/a': {'w': 1}}"


def test_every_name_is_found_in_a_new_process():
    code = (
        "import hk_bridge\n"
        "missing = set(hk_bridge.__all__) - set(dir(hk_bridge))\n"
        "values = [getattr(hk_bridge, name) for name in hk_bridge.__all__]\n"
        "from hk_bridge import *\n"
        "print(missing, wrap is hk_bridge.wrap, nn is hk_bridge.nn, migrate.load)"
    )
    assert run(code).startswith("set() True True <function load")


def test_the_homes_are_right():
    assert set(hk_bridge._HOMES) < set(hk_bridge.__all__)
    for name in hk_bridge._HOMES:
        assert getattr(hk_bridge, name).__name__ == name
    for name in set(hk_bridge.__all__) - set(hk_bridge._HOMES):
        assert getattr(hk_bridge, name).__name__ == f"hk_bridge.{name}"


def test_a_name_that_is_none():
    with pytest.raises(AttributeError, match="'hk_bridge' has no attribute 'flax_mod'"):
        hk_bridge.flax_mod  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'checkpoint'"):
        from hk_bridge import checkpoint  # noqa: F401
    assert not hasattr(hk_bridge, "__wrapped__")


@pytest.mark.parametrize("name", hk_bridge.__all__)
def test_what_can_be_pickled_is(name):
    value = getattr(hk_bridge, name)
    if value.__name__ == name:  # no module
        assert pickle.loads(pickle.dumps(value)) is value


def test_help_has_every_name():
    text = pydoc.plain(pydoc.render_doc(hk_bridge))
    for name in hk_bridge._HOMES:
        assert name in text


def test_linen_alone_loads_no_nnx():
    code = (
        "import flax.linen as nn, haiku as hk, hk_bridge, jax, sys\n"
        "net = lambda x: hk_bridge.FlaxModule(nn.Dense(3))(x)\n"
        "f = hk.transform(net)\n"
        "params = jax.eval_shape(f.init, jax.random.key(0), jax.numpy.ones([1, 2]))\n"
        "hk_bridge.to_flax(params, {}, name='dense')\n"
        "print([m for m in sys.modules if m.endswith('nnx')])\n"
    )
    assert run(code) == "[]"
