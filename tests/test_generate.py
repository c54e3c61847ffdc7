"""Generated modules hold the laws, but for the faults that are known.

`python -m tests.generate` searches on."""

import ast
import collections
import subprocess
import sys

import flax.linen as nn
from generate import found
from generate import known
from generate import render
from generate.search import failure
from generate.search import script
from generate.search import search
from generate.spec import part
from generate.spec import program
import haiku as hk
import jax
import jax.numpy as jnp
import pytest

import hk_bridge

DENSE = part("layer")
COUNTER = part("counter", leaf="jnp.zeros([])", when="self.train")
READER = part("reader")


@pytest.mark.parametrize("seed", range(2))
def test_programs_hold_the_laws(seed):
    result = search(seed, programs=52)
    if result.unexplained is not None:
        failing, error = result.unexplained
        pytest.fail(f"{failing}\n{error}\n\n{script(failing)}")
    assert result.programs == 52


@pytest.mark.parametrize("fault", known.FAULTS, ids=lambda fault: fault.name)
def test_known_faults_are_there(fault):
    held = found.FOUND[fault.name]
    error = failure(held)
    mended = f"{fault.name!r} is mended: take it out of known.py and found.py"
    assert error is not None, mended
    assert known.explain(held, error) == fault.name


@pytest.mark.parametrize("fault", found.MENDED)
def test_mended_faults_are_gone(fault):
    assert failure(found.MENDED[fault]) is None


def test_jitted_code_of_flax_keeps_what_it_asked_haiku_for():
    """The known fault of that name, without the bridge."""

    class Asks(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + hk.get_params()["~"]["w"]

    jitted = nn.jit(Asks)()

    def forward(x):
        hk.get_parameter("w", [], init=jnp.zeros)
        return jitted.apply({}, x)

    f = hk.transform(forward)
    x = jnp.ones([])
    params = jax.eval_shape(f.init, None, x)
    (kept,) = jax.make_jaxpr(f.apply)(params, None, x).consts
    assert isinstance(kept, jax.core.Tracer)  # of init, which is over


def test_vmap_of_haiku_uses_a_key_twice():
    """The known fault of that name, without the bridge."""

    def forward(x):
        noisy = lambda x: x + jax.random.normal(hk.next_rng_key(), x.shape)
        return hk.vmap(noisy, split_rng=not hk.running_init())(x)

    f = hk.transform(forward)
    key = jax.random.key(0)
    with jax.debug_key_reuse(True), pytest.raises(jax.errors.KeyReuseError):
        jax.jit(f.apply)({}, key, jnp.ones([2]))


def test_each_program_has_its_fault():
    assert set(found.FOUND) == {fault.name for fault in known.FAULTS}


def test_a_script_fails_by_itself(tmp_path):
    held = found.FOUND[known.FAULTS[0].name]
    file = tmp_path / "script.py"
    file.write_text(script(held))
    done = subprocess.run([sys.executable, file], capture_output=True, text=True)
    assert done.returncode == 1
    assert type(failure(held)).__name__ in done.stderr


def test_a_name_in_a_script_is_of_one_file():
    defined = []
    for source in render.SOURCES:
        tree = ast.parse((render.HERE / f"{source}.py").read_text())
        kinds = ast.FunctionDef | ast.ClassDef
        defined += [node.name for node in tree.body if isinstance(node, kinds)]
    assert [n for n, count in collections.Counter(defined).items() if count > 1] == []


def test_a_fault_that_is_not_known_ends_the_search(monkeypatch):
    monkeypatch.setattr(known, "FAULTS", ())
    result = search(0, programs=600)  # it ends with the first
    assert result.unexplained is not None
    failing, error = result.unexplained
    assert type(failure(failing)) is type(error)
    assert len(list(failing.block.walk())) <= 2  # it was made small


# The laws can fail: a bridge with a fault of its own is caught.


class Shifted(hk_bridge.FlaxModule):
    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) * (1.0 + 1e-6)


class Doubled(hk_bridge.FlaxModule):
    def __call__(self, *args, **kwargs):
        super().__call__(*args, **kwargs)
        return super().__call__(*args, **kwargs)


class Renamed(hk_bridge.FlaxModule):
    def __init__(self, *args, name=None, **kwargs):
        super().__init__(*args, name=f"{name}_", **kwargs)


class Writing(hk_bridge.FlaxModule):
    """Writes a leaf that nobody changed."""

    def __call__(self, *args, **kwargs):
        y = super().__call__(*args, **kwargs)
        if not hk.running_init():
            part = self.variables["stats"]["part"]["r1"]
            with hk.name_scope(hk.experimental.force_name("net/stats/part")):
                hk.set_state("r1", part * 1.0)
        return y


class Changing(hk_bridge.FlaxModule):
    """Does not compute twice the same."""

    calls = 0

    def __call__(self, x, *args, **kwargs):
        Changing.calls += 1
        return super().__call__(x + jnp.float32(Changing.calls), *args, **kwargs)


@pytest.mark.parametrize(
    ("bridge", "held", "words"),
    [
        (Shifted, program("same_apply", DENSE), "another program: "),
        (Doubled, program("same_apply", DENSE, COUNTER), "another program: "),
        (Doubled, program("like_haiku", DENSE, COUNTER), "ends otherwise"),
        (Renamed, program("like_haiku", DENSE), "params not in Haiku's"),
        (Writing, program("like_haiku", DENSE, READER), "read ends otherwise"),
        (Shifted, program("same_grad", DENSE), "another program: "),
        (Shifted, program("same_call", DENSE), "another program: "),
        (Renamed, program("shown", DENSE), "summary shows"),
        (Changing, program("same_apply", DENSE), "another program: "),
    ],
)
def test_a_planted_fault_is_found(bridge, held, words, monkeypatch):
    assert failure(held) is None
    monkeypatch.setattr(hk_bridge, "FlaxModule", bridge)
    error = failure(held)
    assert words in str(error)
    assert known.explain(held, error) is None


def test_a_planted_fault_of_wrap_is_found(monkeypatch):
    held = program("nnx_apply", part("nnx_layer"), how="'wrapped'")
    wrap = hk_bridge.wrap
    assert failure(held) is None

    def halving(cls):
        def build(*args, **kwargs):
            net = wrap(cls)(*args, **kwargs)
            return lambda *xs, **options: net(*xs, **options) * 0.5

        return build

    monkeypatch.setattr(hk_bridge, "wrap", halving)
    assert "another program: " in str(failure(held))
