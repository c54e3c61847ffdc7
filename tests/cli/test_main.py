"""The command line: what it prints, what it writes, and its exit codes."""

import io
import json
import os
import pathlib
import pickle
import re
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hk_bridge
from hk_bridge import _tables
from hk_bridge import cli
from hk_bridge import migrate
from hk_bridge.cli.main import _COMMANDS
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
        "--to flax to convert it back, or, if it is Flax's, --collection params "
        "--collection state.\n"
    )
    code, _, err = run(capsys, "show", haiku)
    assert code == 2
    assert "it has 'net/layers_0'. Write --haiku to show it, or, if it is" in err
    both = ("--collection", "params", "--collection", "state")
    assert run(capsys, "show", haiku, *both)[0] == 0
    assert (
        "params['net/layers_0']['kernel']" in run(capsys, "show", haiku, "--haiku")[1]
    )
    nested = {"params": {"net": {"Dense_0": {"bias": np.ones(2)}}}}
    migrate.save(tmp_path / "flax.npz", nested)
    argv = ("convert", tmp_path / "flax.npz", out, "--name", "net")
    code, _, err = run(capsys, *argv, "--to", "flax")
    assert code == 2
    assert "its names are those of Flax variables" in err
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


RAISES = """
import flax.linen as nn

class Net(nn.Module):
    def __call__(self, x):
        return self.part(x)

    def part(self, x):
        raise ValueError("no part")

def build():
    return nn.Dense(undefined)
"""


def test_verify_shows_the_line_that_raised(capsys, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "raising_module.py").write_text(RAISES)
    code, out, err = run(capsys, "verify", "raising_module:Net", "--input", "f32[2,4]")
    assert (code, out) == (2, "")
    line = '(raising_module.py, line 9: raise ValueError("no part"))'
    assert f"ValueError: no part {line}" in err
    assert one_line(err)
    code, out, err = run(capsys, "verify", "raising_module:build")
    assert "(raising_module.py, line 12: return nn.Dense(undefined))" in err
    code, out, err = run(capsys, "verify", "flax.linen:Dense", "--config", "features=3")
    assert code == 2
    assert "line" not in err


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
    ("verify", "flax.linen:Dense", "--step", "3"),
    ("verify", "flax.linen:Dense", "--collection", "params"),
    ("show", "a.npz", "--haiku", "--collection", "params"),
    ("convert", "a.npz", "b.npz", "--haiku", "--name", "net"),
    ("convert", "a.npz", "b.npz", "--haiku", "--to", "flax"),
    ("convert", "a.npz", "b.npz", "--haiku", "--collection", "params"),
    ("convert", "a.npz", "b.npz", "--to", "flax", "--name", "n", "--names", "plain"),
    ("convert", "a.npz", "b.npz", "--to", "flax", "--name", "n", "--collection", "c"),
]


@pytest.mark.parametrize("argv", USAGE, ids=" ".join)
def test_wrong_arguments(capsys, argv):
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert "usage: hk_bridge" in err


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


# No silent loss.


@pytest.fixture
def bare(tmp_path, variables):
    migrate.save(tmp_path / "bare.msgpack", variables["params"])
    return tmp_path / "bare.msgpack"


@pytest.mark.parametrize("command", ["show", "convert"])
def test_a_tree_without_params(capsys, bare, tmp_path, command):
    out = tmp_path / "out.npz"
    argv = [command, bare, *([out] if command == "convert" else []), "--name", "net"]
    code, shown, err = run(capsys, *argv)
    assert (code, shown, out.exists()) == (2, "", False)
    assert one_line(err)
    assert "'layers_0', 'layers_1' on top, which is none of Flax's own" in err
    assert "write --collection params" in err
    code, shown, _ = run(capsys, *argv, "--collection", "params")
    assert code == 0
    assert "Flax msgpack" in shown
    if command == "convert":
        assert f"{out}: NumPy .npz, 4 leaves, 84 B, as Haiku has them" in shown
        assert sorted(migrate.load_haiku(out)[0]) == ["net/layers_0", "net/layers_1"]


def test_verify_takes_a_collection(capsys, tmp_path):
    kernel = np.ones([4, 3], np.float32)
    migrate.save(tmp_path / "a.npz", {"kernel": kernel, "bias": kernel[0]})
    argv = (*DENSE, "--variables", tmp_path / "a.npz")
    assert run(capsys, *argv)[0] == 2
    assert run(capsys, *argv, "--collection", "params")[0] == 0


def test_a_state_of_training(capsys, tmp_path, variables):
    path = tmp_path / "state.msgpack"
    migrate.save(path, {**variables, "opt_state": {"0": {}}, "step": {"n": np.ones(1)}})
    code, _, err = run(capsys, "show", path)
    assert code == 2
    assert "load(path, collection=" in err
    picked = [part for name in variables for part in ("--collection", name)]
    code, out, _ = run(capsys, "show", path, *picked)
    assert code == 0
    assert "6 leaves" in out


def test_show_spells_out_what_a_terminal_would_obey(capsys, tmp_path):
    path = tmp_path / "a.msgpack"
    evil = "a\x1b[2J\x1b]0;x\x07\u202eb\n"
    migrate.save(path, {"params": {evil: {"w": np.ones(1)}}})
    _, out, err = run(capsys, "show", path)
    assert "\x1b" not in out + err
    assert "a\\x1b[2J\\x1b]0;x\\x07\\u202eb\\n" in out
    assert all(line.isprintable() for line in out.splitlines())
    migrate.save(tmp_path / "b.msgpack", {evil: {"w": np.ones(1)}})
    _, out, err = run(capsys, "show", tmp_path / "b.msgpack")
    assert not out
    assert "\x1b" not in err


def test_converting_what_was_converted(capsys, tmp_path):
    """A module without submodules has no slash in its names."""
    path, haiku = tmp_path / "flax.npz", tmp_path / "haiku.npz"
    migrate.save(path, {"params": {"kernel": np.ones([2, 3])}})
    assert run(capsys, "convert", path, haiku, "--name", "net")[0] == 0
    argv = ("convert", haiku, tmp_path / "again.npz", "--name", "net")
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert "is in Haiku's layout already: it has 'net'." in err
    both = ("--collection", "params", "--collection", "state")
    assert run(capsys, *argv, *both)[0] == 0


@pytest.mark.parametrize("how", ["same", "dots", "link"])
def test_a_source_is_not_overwritten(capsys, path, tmp_path, how):
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.msgpack").symlink_to(path)
    target = {
        "same": path,
        "dots": tmp_path / "sub" / ".." / path.name,
        "link": tmp_path / "link.msgpack",
    }[how]
    before = path.read_bytes()
    code, _, err = run(capsys, "convert", path, target, "--name", "net")
    assert code == 2
    assert "is the source, or in it. Choose a new name." in err
    assert path.read_bytes() == before


def test_a_target_inside_the_source_is_refused(capsys, tmp_path, variables):
    migrate.save(tmp_path / "net", variables)
    inside = tmp_path / "net" / "out.npz"
    code, _, _ = run(capsys, "convert", tmp_path / "net", inside, "--name", "net")
    assert (code, inside.exists()) == (2, False)


@pytest.mark.parametrize("suffix", [".ckpt", ".pkl", ".h5", ".json"])
def test_a_target_of_unknown_suffix_is_refused(capsys, path, tmp_path, suffix):
    out = tmp_path / f"out{suffix}"
    code, _, err = run(capsys, "convert", path, out, "--name", "net")
    assert (code, out.exists()) == (2, False)
    assert ".msgpack, .safetensors, .npz" in err


@pytest.mark.parametrize("value", ["false", "true", "none", "null", "FALSE"])
def test_a_value_that_is_nearly_pythons_is_refused(capsys, value):
    code, _, err = run(capsys, *DENSE, "--kwarg", f"deterministic={value}")
    assert code == 2
    assert f"'{value}' is no Python value: write deterministic=" in err
    assert f"""deterministic="'{value}'" for the text""" in err


EXITS = """
import sys
import flax.linen as nn

class Exits(nn.Module):
    def __call__(self, x):
        sys.exit(0)

def build():
    sys.exit(0)
"""


@pytest.mark.parametrize("target", ["exits:Exits", "exits:build", "exits_at_once:Net"])
def test_a_module_that_exits_is_not_verified(capsys, tmp_path, monkeypatch, target):
    (tmp_path / "exits.py").write_text(EXITS)
    (tmp_path / "exits_at_once.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, out, err = run(capsys, "verify", target, "--input", "f32[2]")
    assert (code, out) == (2, "")
    assert "SystemExit: 0" in err


@pytest.mark.parametrize("name", ["safetensors", "flax", "numpy", "typing", "json"])
def test_a_module_beside_the_weights_does_not_run(tmp_path, name):
    path = tmp_path / "a.safetensors"
    migrate.save(path, {"params": {"w": np.ones(1)}})
    (tmp_path / f"{name}.py").write_text("raise SystemExit('it ran')")
    command = [sys.executable, "-m", "hk_bridge", "show", path.name]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "params['net']['w']" in done.stdout


def test_verify_finds_the_module_in_the_folder(tmp_path):
    (tmp_path / "mine.py").write_text("from flax.linen import Dense")
    command = [sys.executable, "-m", "hk_bridge", "verify", "mine:Dense"]
    command += ["--config", "features=2", "--input", "f32[2,3]"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Haiku's own, and folders of steps.


def test_show_of_haikus_own(capsys, tmp_path):
    path = tmp_path / "params.npz"
    np.savez(path, **{"mlp/~/linear//w": np.ones([2, 3], np.float32)})
    code, out, _ = run(capsys, "show", path, "--haiku")
    assert code == 0
    assert "NumPy .npz" in out
    assert "params['mlp/~/linear']['w']  float32[2,3]  24 B" in out
    code, out, _ = run(capsys, "show", path, "--haiku", "--json")
    shown = json.loads(out)
    assert (shown["format"], shown["bytes"]) == ("NumPy .npz", 24)
    assert shown["leaves"][0]["haiku_module"] == "mlp/~/linear"
    assert run(capsys, "show", path)[0] == 2


@pytest.mark.parametrize("path", ["xyz://a.npz", "gs://bucket/a.npz"])
def test_what_is_far_away_is_told_in_one_line(capsys, monkeypatch, path):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    code, _, err = run(capsys, "show", path)
    assert (code, one_line(err)) == (2, True)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    code, _, err = run(capsys, "show", path)
    assert (code, one_line(err)) == (2, True)
    assert "pip install fsspec" in err


def test_convert_of_haikus_own(capsys, tmp_path):
    params = {"mlp/~/linear": {"w": np.ones([2, 3], np.float32)}}
    path, out = tmp_path / "params.pkl", tmp_path / "out.npz"
    path.write_bytes(pickle.dumps(params))
    argv = ("convert", path, out, "--haiku", "--names", "alphafold")
    code, shown, _ = run(capsys, *argv)
    assert code == 0
    assert f"{path}: pickle\n{out}: NumPy .npz, 1 leaf, 24 B, as Haiku" in shown
    with np.load(out) as archive:
        assert list(archive) == ["mlp/~/linear//w"]
    code, shown, _ = run(capsys, "convert", out, tmp_path / "a.msgpack", "--haiku")
    assert code == 0
    assert_identical(migrate.load_haiku(tmp_path / "a.msgpack"), (params, {}))
    code, _, err = run(capsys, "convert", tmp_path / "none", out, "--haiku")
    assert (code, one_line(err)) == (2, True)


def test_a_step(capsys, tmp_path, variables):
    for step in (1, 2):
        (tmp_path / "run").mkdir(exist_ok=True)
        migrate.save(tmp_path / "run" / str(step), variables)
    code, out, _ = run(capsys, "show", tmp_path / "run")
    assert code == 0
    assert f"(Orbax, {tmp_path / 'run' / '2'})" in out
    code, out, _ = run(capsys, "show", tmp_path / "run", "--step", "1")
    assert f"(Orbax, {tmp_path / 'run' / '1'})" in out
    code, _, err = run(capsys, "show", tmp_path / "run", "--step", "3")
    assert code == 2
    assert "has no step 3. It has 1, 2." in err


def test_leaves_of_other_modules_are_told(capsys, tmp_path):
    one = {"w": np.ones(2, np.float32)}
    path = tmp_path / "haiku.npz"
    params = {"net": one, "net/a": one, "net/~/b": one, "other": {**one, "b": one["w"]}}
    migrate.save_haiku(path, params, {"net/c": one, "other": one})
    argv = ("convert", path, tmp_path / "flax.npz", "--to", "flax", "--name", "net")
    code, out, _ = run(capsys, *argv)
    assert code == 0
    assert "3 leaves, 24 B, as Flax has them\n4 leaves of other modules than" in out
    code, out, _ = run(capsys, *argv, "--json")
    assert (json.loads(out)["leaves"], json.loads(out)["left_out"]) == (3, 4)
    back = ("convert", tmp_path / "flax.npz", tmp_path / "b.npz", "--name", "net")
    code, out, _ = run(capsys, *back)
    assert (code, "left out" in out) == (0, False)


def test_names_of_files_are_spelled_out_too(capsys, tmp_path, variables):
    path = tmp_path / "a\x1b[31m.npz"
    migrate.save(path, variables)
    for argv in (
        ("show", path),
        ("convert", path, tmp_path / "b\x1b[31m.npz", "--name", "net"),
        ("show", tmp_path / "b\x1b[31m.npz", "--haiku"),
    ):
        code, out, _ = run(capsys, *argv)
        assert (code, "\x1b" in out, r"\x1b[31m.npz" in out) == (0, False, True)


_LOUD = """
import flax.linen as nn

print("imported")

class Stop(BaseException):
    pass

class Loud(nn.Module):
    error: str = ""

    @nn.compact
    def __call__(self, x):
        print("called")
        if self.error:
            raise {"Stop": Stop, "GeneratorExit": GeneratorExit}[self.error]("enough")
        return nn.Dense(3)(x)
"""


def test_what_a_module_prints_is_no_json(capsys, tmp_path, monkeypatch):
    (tmp_path / "loud.py").write_text(_LOUD)
    migrate.save(tmp_path / "empty.npz", {"params": {}})
    monkeypatch.chdir(tmp_path)
    argv = ("verify", "loud:Loud", "--input", "f32[2,4]", "--json")
    code, out, err = run(capsys, *argv)
    assert (code, json.loads(out)["ok"]) == (0, True)
    assert err.startswith("imported\ncalled\n")
    code, out, _ = run(capsys, *argv, "--variables", "empty.npz")
    assert (code, json.loads(out)["ok"]) == (1, False)
    assert "called" in run(capsys, *argv[:-1])[1]
    for error in ("Stop", "GeneratorExit"):
        config = ("--config", f"error={error}")
        code, out, err = run(capsys, *argv, *config)
        assert (code, out) == (2, "")
        assert f"verify: {error}: enough" in err


# Before a command runs.


@pytest.mark.parametrize(
    "argv", [["--help"], ["--version"], ["convert", "--help"], ["--completion", "bash"]]
)
def test_what_needs_no_jax_loads_none(argv):
    code = (
        "import sys; from hk_bridge.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "print({'jax', 'flax', 'haiku', 'numpy'} & sys.modules.keys(), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout
    assert done.stderr == "set()\n"


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"hk_bridge {hk_bridge.__version__}\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(capsys, shell):
    code, out, err = run(capsys, "--completion", shell)
    assert (code or 0, err) == (0, "")
    for part in ("verify", "weathernext", "completion"):
        assert part in out


def test_bash_completes_commands_options_and_files(capsys, tmp_path):
    """What bash itself makes of the script, word by word."""
    script = tmp_path / "completion"
    script.write_text(run(capsys, "--completion", "bash")[1])
    (tmp_path / "net.msgpack").touch()

    def completed(*words):
        line = f"""
            source completion
            COMP_WORDS=(hk_bridge {" ".join(words)!s} "$1"); COMP_CWORD={len(words) + 1}
            function=$(complete -p hk_bridge | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
            "$function" hk_bridge "$1"; printf '%s\\n' "${{COMPREPLY[@]}}"
        """
        return line

    def ask(start, *words):
        command = ["bash", "-c", completed(*words), "bash", start]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return [word.strip() for word in done.stdout.split()]

    assert ask("ver") == ["verify"]
    assert ask("--na", "convert") == ["--name", "--names"]
    assert ask("alph", "convert", "--names") == ["alphafold"]
    assert ask("net", "show") == ["net.msgpack"]


def test_completion_into_a_pipe_that_closes():
    command = [sys.executable, "-m", "hk_bridge", "--completion", "bash"]
    line = f"{' '.join(command)} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert done.returncode in (0, 141)  # 0 where the pipe held all of it
    assert done.stderr == ""


def test_completion_without_its_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, out, err = run(capsys, "--completion", "bash")
    line = "completion needs shtab: pip install 'hk_bridge[completion]'\n"
    assert (code, out, err) == (2, "", line)


def test_every_command_has_its_file():
    commands = {path.stem for path in pathlib.Path(cli.__file__).parent.glob("*.py")}
    rest = {"__init__", "common", "main", "options"}
    assert commands - rest == set(_COMMANDS)


# Tables in a terminal.


@pytest.mark.parametrize("columns", [40, 60, 100])
def test_tables_are_no_wider_than_the_terminal(capsys, path, columns, monkeypatch):
    argv = ("show", path, "--name", "a_rather/long_name/of_a_module")
    whole = run(capsys, *argv)[1]
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run(capsys, *argv)[1] == whole  # a file, or a program, gets whole lines
    with monkeypatch.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: True)
        code, out, _ = run(capsys, *argv)
    assert code == 0
    assert max(map(len, out.splitlines()[1:])) <= columns
    assert columns_of(out) == columns_of(whole)  # nothing is left out


def test_a_narrow_table_keeps_the_tree():
    rows = [("Flax", "Haiku"), ("params", ""), ("    a_kernel", "params[0]")]
    with _tables.fitting(19):
        *_, top, first, second = _tables.table(rows).splitlines()
    assert (top, first[:8], second[:8]) == ("params", "    a_ke", "    rnel")


def test_letters_that_a_terminal_lacks(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", **{"params/naïve/w": np.ones(2)})
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["show", str(tmp_path / "a.npz")]) == 0
    assert b"na\\xefve" in out.buffer.getvalue()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="of Linux")
def test_a_full_disk(path, monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["show", str(path)]) == 2
    assert "No space left" in capfd.readouterr().err


def columns_of(shown):
    """The text of each column, however many lines a cell takes."""
    _, *lines = shown.splitlines()
    rule = next(line for line in lines if set(line) == {"-", " "})
    ends = [match.span() for match in re.finditer("-+", rule)]
    columns = ["".join(line[slice(*end)] for line in lines) for end in ends]
    return [re.sub("[ -]", "", text) for text in columns]


NETS = """
import flax.linen as nn, haiku as hk, jax.numpy as jnp

Flax = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(2)])


def forward(x):
    return hk.nets.MLP([4, 2], activation=jnp.tanh)(x)


def wrong(x):
    return hk.nets.MLP([4, 2])(x)


relu = hk.transform(wrong)
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    (tmp_path / "nets_to_match.py").write_text(NETS)
    monkeypatch.syspath_prepend(tmp_path)
    module = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(2)])
    variables = module.init(jax.random.key(0), jnp.ones([2, 3]))
    migrate.save(tmp_path / "weights.msgpack", jax.tree.map(np.asarray, variables))
    return "nets_to_match", tmp_path / "weights.msgpack"


def test_match(capsys, nets, tmp_path):
    name, path = nets
    argv = ["match", f"{name}:Flax", path, f"{name}:forward", "--input", "f32[2,3]"]
    code, out, _ = run(capsys, *argv, "--table", tmp_path / "table.tsv")
    assert code == 0
    assert "The networks are the same: 4 of 4 leaves of Haiku found" in out
    table = migrate.LeafTable.load(tmp_path / "table.tsv")
    assert {row.haiku: row.flax for row in table.rows} == {
        f"params/mlp/~/linear_{i}/{haiku}": f"params/layers_{2 * i}/{flax}"
        for i in range(2)
        for haiku, flax in (("w", "kernel"), ("b", "bias"))
    }


def test_match_says_where_they_part(capsys, nets):
    name, path = nets
    argv = ["match", f"{name}:Flax", path, f"{name}:relu", "--input", "f32[2,3]"]
    code, out, _ = run(capsys, *argv)
    assert code == 1
    assert "activation: max in Haiku, tanh in Flax" in out
    code, out, _ = run(capsys, *argv, "--json")
    assert code == 1
    assert json.loads(out)["parting"].startswith("They part here: activation")


def test_match_of_no_network(capsys, nets):
    name, path = nets
    argv = ["match", f"{name}:Flax", path, f"{name}:gone", "--input", "f32[2,3]"]
    code, _, err = run(capsys, *argv)
    assert code == 2
    assert one_line(err)
    assert "gone" in err
