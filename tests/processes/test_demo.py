"""The command line and its demo: what it prints, what it checks, how it refuses."""

import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from hk_bridge.cli import demo
from hk_bridge.cli.main import main
from hk_bridge.cli.options import EXTRAS


@pytest.fixture(scope="module")
def trained():
    """One epoch of training, for tests of what comes after it."""
    return demo.train(demo.load(seed=0), epochs=1, seed=0)


@pytest.fixture
def after_training(trained, monkeypatch):
    """The demo skips the training, and is content with what one epoch reaches."""
    monkeypatch.setattr(demo, "train", lambda *args: trained)
    monkeypatch.setattr(demo, "ENOUGH", 0.5)


def test_help_mentions_demo():
    command = [sys.executable, "-m", "hk_bridge", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"^ +demo +train ", done.stdout, re.MULTILINE)
    assert "hk_bridge demo --epochs" in done.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: COMMAND"),
        (["demo", "--epochs", "0"], "'0' is no whole number from 1"),
        (["demo", "--seed", "-1"], "'-1' is no whole number from 0"),
        (["demo", "--plot", "curves.pdf"], "'curves.pdf' is no name of a .png file"),
        (["demo", "--plot", "no_such_folder/a.png"], "in a folder that exists"),
    ],
)
def test_wrong_arguments_are_told_before_the_work(argv, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(argv)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("package", EXTRAS["demo"])
def test_a_missing_extra_is_one_line(package, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["demo", "--plot", str(tmp_path / "curves.png")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"demo needs {package}: pip install 'hk_bridge[demo]'\n"


def test_another_missing_module_is_no_missing_extra(monkeypatch):
    def load(seed):
        raise ModuleNotFoundError("No module named 'hk_bridge._gone'", name="hk_bridge")

    monkeypatch.setattr(demo, "load", load)
    with pytest.raises(ModuleNotFoundError, match="_gone"):
        main(["demo"])


@pytest.mark.usefixtures("after_training")
def test_pure_flax_gives_the_same_bits(trained, monkeypatch, capsys):
    # Without --plot, matplotlib is not needed.
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert trained.compilations == 1
    assert main(["demo", "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "Compilations of the training step: 1\n" in out
    assert "3600 logits, bit-identical" in out
    assert max(map(len, out.splitlines())) <= 100
    table = out.partition("\n\n")[0].splitlines()[2:]
    rows = [line.split()[0] for line in table if not line.startswith(" ")]
    top = [row for row in rows if "/" not in row]
    assert top == ["stem", "norm", "body", "flatten", "head"]
    assert {"stem/Conv_0", "body/BatchNorm_0", "body/Dropout_0"} <= set(rows)


@pytest.mark.usefixtures("after_training")
@pytest.mark.parametrize(
    "path",
    [
        ("params", "stem", "Conv_0", "kernel"),
        ("params", "norm", "scale"),
        ("batch_stats", "body", "BatchNorm_0", "var"),
    ],
    ids="/".join,
)
def test_other_bits_fail_the_demo(path, monkeypatch, capsys):
    convert = demo.pure_flax_variables
    keys = tuple(map(jax.tree_util.DictKey, path))

    def convert_and_nudge(params, state):
        return jax.tree_util.tree_map_with_path(
            lambda at, leaf: jnp.nextafter(leaf, jnp.inf) if at == keys else leaf,
            convert(params, state),
        )

    monkeypatch.setattr(demo, "pure_flax_variables", convert_and_nudge)
    assert main(["demo"]) == 1
    assert "3600 logits, NOT bit-identical" in capsys.readouterr().out


@pytest.mark.usefixtures("after_training")
def test_too_low_an_accuracy_fails_the_demo(monkeypatch):
    monkeypatch.setattr(demo, "ENOUGH", 1.01)
    assert main(["demo"]) == 1


@pytest.mark.usefixtures("after_training")
def test_more_than_one_compilation_fails_the_demo(trained, monkeypatch):
    twice = trained._replace(compilations=2)
    monkeypatch.setattr(demo, "train", lambda *args: twice)
    assert main(["demo"]) == 1


def test_default_run(capsys, tmp_path):
    plot = tmp_path / "curves.png"
    assert main(["demo", "--plot", str(plot)]) == 0
    out = capsys.readouterr().out
    accuracy = re.search(r"Test accuracy: ([\d.]+)% of 360 ", out)
    assert float(accuracy[1]) >= 97
    assert "3600 logits, bit-identical" in out
    assert f"Curves: {plot}" in out
    assert plot.read_bytes().startswith(b"\x89PNG")
