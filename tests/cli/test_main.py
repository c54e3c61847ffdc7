"""The command line: what it prints, what it writes, and its exit codes."""

import json
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hk_bridge import migrate
from hk_bridge.cli.main import main
from hk_bridge.testing import assert_identical

MODULE = nn.Sequential([nn.Dense(3), nn.BatchNorm(use_running_average=True)])


@pytest.fixture
def variables():
    return jax.tree.map(np.asarray, MODULE.init(jax.random.key(0), jnp.ones([2, 4])))


@pytest.fixture
def path(tmp_path, variables):
    migrate.save(tmp_path / "flax.msgpack", variables)
    return tmp_path / "flax.msgpack"


def run(capsys, *argv):
    """`(exit code, stdout, stderr)`."""
    try:
        code = main(list(map(str, argv)))
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


def one_line(text):
    return len(text.strip().splitlines()) == 1


def test_show(capsys, path):
    code, out, _ = run(capsys, "show", path, "--name", "outer/~/net")
    assert code == 0
    for part in (
        "float32[4,3]  48 B  params['outer/~/net/layers_0']['kernel']",
        "state['outer/~/net/batch_stats/layers_1']['mean']",
        "6 leaves, 108 B",
    ):
        assert part in out


def test_show_as_json(capsys, path):
    code, out, _ = run(capsys, "show", path, "--json")
    assert code == 0
    assert len(json.loads(out)["leaves"]) == 6


@pytest.mark.parametrize("suffix", [".msgpack", ".safetensors", ".npz", ""])
def test_convert_there_and_back(capsys, path, tmp_path, variables, suffix):
    there, back = tmp_path / f"haiku{suffix}", tmp_path / f"back{suffix}"
    name = ("--name", "outer/~/net")
    assert run(capsys, "convert", path, there, *name)[0] == 0
    trees = migrate.load(there)
    assert sorted(trees["params"]) == ["outer/~/net/layers_0", "outer/~/net/layers_1"]
    assert sorted(trees["state"]) == ["outer/~/net/batch_stats/layers_1"]
    assert run(capsys, "convert", there, back, *name, "--to", "flax")[0] == 0
    assert_identical(migrate.load(back), variables)


def test_what_is_in_the_other_layout_already_is_refused(capsys, path, tmp_path):
    haiku, out = tmp_path / "haiku.npz", tmp_path / "out.npz"
    run(capsys, "convert", path, haiku, "--name", "net")
    code, _, err = run(capsys, "convert", haiku, out, "--name", "net")
    assert code == 2
    assert err == (
        f"convert: {haiku} is in Haiku's layout already: it has 'net/layers_0'. Write "
        "--to flax to convert it back.\n"
    )
    nested = {"params": {"net": {"Dense_0": {"bias": np.ones(2)}}}}
    migrate.save(tmp_path / "flax.npz", nested)
    argv = ("convert", tmp_path / "flax.npz", out, "--name", "net")
    code, _, err = run(capsys, *argv, "--to", "flax")
    assert code == 2
    assert "is no Haiku checkpoint" in err
    assert not out.exists()
    assert run(capsys, *argv)[0] == 0


def test_names_with_a_slash_are_no_sign_of_haikus_layout(capsys, tmp_path):
    given, out = tmp_path / "given.npz", tmp_path / "out.npz"
    variables = {"params": {"a/b": {"bias": np.ones(2)}}, "state": {"c": np.ones(1)}}
    migrate.save(given, variables)
    assert run(capsys, "convert", given, out, "--name", "net")[0] == 0
    assert sorted(migrate.load(out)["params"]) == ["net/a%2Fb"]


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    source = """
import flax.linen as nn
import jax
import jax.numpy as jnp

count = 0

class Good(nn.Module):
    width: int = 2
    activation: str = "relu"

    @nn.compact
    def __call__(self, x):
        x = getattr(nn, self.activation)(nn.Dense(self.width)(x))
        return nn.BatchNorm(use_running_average=False)(x)

class Bad(nn.Module):
    @nn.compact
    def __call__(self, x):
        global count
        count += 1
        return nn.Dense(2)(x) * count

good = Good()
"""
    (tmp_path / "users_module.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "users_module"
    sys.modules.pop("users_module", None)


def test_verify(capsys, user_module):
    argv = (
        "verify",
        f"{user_module}:Good",
        "--input",
        "f32[3,4]",
        "--config",
        "width=5",
    )
    code, out, _ = run(capsys, *argv, "--config", "activation=tanh", "--steps", "2")
    assert code == 0
    for part in (
        "is the same in Haiku",
        "Dense_0/kernel",
        "4, 5",
        "2 steps",
        "program",
    ):
        assert part in out
    code, out, _ = run(capsys, *argv, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["ok"]
    assert {row["check"] for row in report["results"]} == {
        "init", "outputs", "gradients", "state", "program",
    }  # fmt: skip


def test_verify_that_fails(capsys, user_module):
    argv = ("verify", f"{user_module}:Bad", "--input", "f32[3,4]")
    code, out, _ = run(capsys, *argv)
    assert code == 1
    assert "NOT the same" in out
    assert "DIFFERS" in out
    code, out, _ = run(capsys, *argv, "--json")
    assert code == 1
    assert not json.loads(out)["ok"]


def test_verify_with_a_checkpoint(capsys, tmp_path):
    full = {"kernel": np.ones([4, 2], np.float32), "bias": np.zeros(2, np.float32)}
    argv = (
        "verify",
        "flax.linen:Dense",
        "--config",
        "features=2",
        "--input",
        "f32[3,4]",
    )
    for params, expected in ((full, 0), ({"kernel": full["kernel"]}, 1)):
        path = tmp_path / f"given{expected}.npz"
        migrate.save(path, {"params": params})
        code, out, err = run(capsys, *argv, "--variables", path)
        assert code == expected
    assert "missing" in out + err
    assert "params/bias" in out + err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("users_module:good", "--config", "width=3"),
            "--config needs a class or a function, but users_module:good is an "
            "instance of Good. Leave --config out, or give its class.",
        ),
        (
            ("users_module:Good", "--input", "f32[100000000,10000000]"),
            "--input float32[100000000,10000000] cannot be made. "
            "MemoryError: Unable to allocate",
        ),
        (
            ("users_module:Good", "--input", "i32[99999999999999999999]"),
            "--input int32[99999999999999999999] cannot be made. ValueError: Maximum",
        ),
    ],
)
def test_verify_says_what_it_cannot_use(capsys, user_module, argv, message):
    code, out, err = run(capsys, "verify", *argv)
    assert (code, out) == (2, "")
    assert one_line(err)
    assert message in err


DENSE = ("verify", "flax.linen:Dense", "--config", "features=3", "--input", "f32[2,4]")
CANNOT_START = {
    "no_file": ("show", "nothing.npz"),
    "no_checkpoint": ("show", "broken.msgpack"),
    "no_source": ("convert", "nothing.npz", "out.npz", "--name", "net"),
    "no_module": ("verify", "no_such_package:Net", "--input", "f32[2]"),
    "no_class": ("verify", "flax.linen:Nope", "--input", "f32[2]"),
    "no_linen_module": ("verify", "json:JSONDecoder"),
    "no_arguments": ("verify", "flax.linen:Dense", "--input", "f32[2]"),
    "no_name": (*DENSE, "--name", "a/1bad"),
}


@pytest.mark.parametrize("argv", CANNOT_START.values(), ids=CANNOT_START)
def test_what_cannot_start_is_one_line_and_code_2(capsys, tmp_path, monkeypatch, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.msgpack").write_bytes(b"\x93\x00")
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert one_line(err)
    assert err.startswith(f"{argv[0]}: ")


USAGE = [
    (),
    ("fly",),
    ("show",),
    ("convert", "a.npz", "b.npz"),
    ("convert", "a.npz", "b.npz", "--name", "/net"),
    ("verify", "flax.linen:Dense", "--name", "1bad"),
    ("verify", "flax.linen:Dense", "--input", "f32[2"),
    ("verify", "flax.linen:Dense", "--input", "f31[2]"),
    ("verify", "flax.linen:Dense", "--config", "features"),
]


@pytest.mark.parametrize("argv", USAGE, ids=" ".join)
def test_wrong_arguments(capsys, argv):
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert "usage: python -m hk_bridge" in err


@pytest.mark.parametrize(
    "argv",
    [
        "show",
        "verify flax.linen:Dense --config features=3 --input f32[4] --variables",
    ],
    ids=lambda argv: argv.split()[0],
)
@pytest.mark.parametrize("count", [1, 999])  # more than is buffered
def test_a_reader_that_has_enough(tmp_path, argv, count):
    path = tmp_path / "many.npz"
    migrate.save(path, {"params": {str(i): np.ones(1) for i in range(count)}})
    command = [sys.executable, "-m", "hk_bridge", *argv.split(), str(path)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


def test_a_missing_extra(capsys, path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    out = tmp_path / "out.safetensors"
    code, _, err = run(capsys, "convert", path, out, "--name", "net")
    assert code == 2
    assert one_line(err)
    assert "pip install 'hk_bridge[checkpoint]'" in err
