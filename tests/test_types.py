"""What type checkers and editors see: mypy and pyright on one file, and jedi."""

import json
import pathlib
import re
import subprocess
import sys

import flax.linen as nn
import jedi
from mypy import api
import pytest
import stub

import hk_bridge

ROOT = pathlib.Path(__file__).parent.parent
# Where type checkers find the package, unless it is installed.
HOME = pathlib.Path(hk_bridge.__file__).parent.parent
PATHS = [] if HOME.name == "site-packages" else [str(HOME)]

# `# E` is where an error is to be, and nowhere else; `reveal_type` is told apart below.
CODE = """
import flax.linen as nn
import haiku as hk
import jax
from flax import nnx
import hk_bridge
from hk_bridge import FlaxModule


class Net(nn.Module):
    width: int = 3

    def __call__(self, x: jax.Array, train: bool = False) -> tuple[jax.Array, float]:
        return x, 1.0

    def encode(self, x: jax.Array) -> jax.Array:
        return x


class Graph(nnx.Module):
    def __init__(self, size: int, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(size, size, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear(x)


class Cell(nn.LSTMCell):
    pass


BridgedNet = hk_bridge.wrap(Net)
BridgedGraph = hk_bridge.wrap(Graph)
BridgedCell = hk_bridge.wrap(Cell)
BridgedDense = hk_bridge.wrap(nn.Dense)


def takes_core(core: hk.RNNCore) -> None: ...
def takes_params(params: hk.MutableParams, state: hk.MutableState) -> None: ...
def takes_read_only(params: hk.Params, state: hk.State) -> None: ...


def forward(x: jax.Array) -> jax.Array:
    takes_core(hk_bridge.nn.LSTMCell(3))
    takes_core(hk_bridge.nn.GRUCell(features=3, name="cell"))
    takes_core(hk_bridge.nn.Dense(3))  # E
    w = hk.initializers.Constant(1.0)
    dense = hk_bridge.nn.Dense(3, use_bias=False, kernel_init=w)
    reveal_type(dense)  # Dense
    reveal_type(dense(x))  # Array
    reveal_type(hk_bridge.nn.BatchNorm()(x, use_running_average=True))  # Array
    reveal_type(dense.features)  # int
    cell = hk_bridge.nn.LSTMCell(3)
    y, state = cell(x, cell.initial_state(2))
    reveal_type(y)  # Array
    reveal_type(hk_bridge.nn.GroupNorm(num_groups=2)(x))  # Array
    hk_bridge.nn.Dense(3, with_bias=False)  # E
    hk_bridge.nn.Dense("3")  # E
    hk_bridge.nn.LayerNorm(-1)  # E
    hk_bridge.nn.Conv(16, 3)  # E
    hk_bridge.nn.Conv(16, (3, 3))
    hk_bridge.nn.BatchNorm()(x, True)  # E
    FlaxModule(nn.Dense)  # E
    FlaxModule(nn.Dense(3))
    FlaxModule(nnx.Linear(1, 1, rngs=nnx.Rngs(0)))
    FlaxModule(nnx.Linear)  # E
    FlaxModule(nn.Dense(3)).encode  # E
    output, mutated = dense(x, mutable=["intermediates"])
    reveal_type(output)  # Array
    isinstance(dense, FlaxModule)
    # Wrapped classes.
    BridgedNet("3")  # E
    BridgedNet(widht=3)  # E
    BridgedNet(3, name="net", variables={"params": {}}, transient="cache")
    net = BridgedNet(width=3, name="net")
    reveal_type(net)  # Net
    reveal_type(net.module)  # Net
    reveal_type(net(x, train=True))  # tuple
    net(x, train="yes")  # E
    net("x")  # E
    reveal_type(net(x, rngs={})[0])  # Array
    outputs, mutated = net(x, train=True, mutable=["cache"])
    reveal_type(outputs[1])  # float
    net(x, method="encode").shape
    net.encode(x).shape
    net.params_dict()["w"].shape
    isinstance(x, (BridgedNet, BridgedGraph, BridgedCell))
    isinstance(net, FlaxModule)
    BridgedDense(3, kernel_init=w)(x).shape
    BridgedDense("3")  # E
    graph = BridgedGraph(3, name="net")
    reveal_type(graph)  # Graph
    reveal_type(graph(x))  # Array
    reveal_type(BridgedGraph(3, rngs=nnx.Rngs(0)).module.linear)  # Linear
    BridgedGraph("3", rngs=nnx.Rngs(0))  # E
    graph("x")  # E
    takes_core(BridgedCell(3))
    takes_core(BridgedNet(3))  # E
    reveal_type(BridgedCell(features=3))  # Cell
    BridgedCell(3)(x, BridgedCell(3).initial_state(2))
    hk_bridge.wrap(3)  # E
    return dense(x, name="wrong")  # E


params, state = hk_bridge.to_haiku({"params": {}}, name="net")
takes_params(params, state)
takes_read_only(params, state)
reveal_type(hk_bridge.initializer(hk.initializers.Constant(1.0)))  # Initializer
"""
# Which classes are hosts: for mypy, which the package itself is checked by.
HOSTS = """
from hk_bridge._core.apply import Apply
from hk_bridge._core.init import Init
from hk_bridge._flax.host import Alone
from hk_bridge._flax.host import Host


def hosts(init: Init, apply: Apply, alone: Alone) -> list[Host]:
    return [init, apply, alone]


def no_host(number: int) -> Host:
    return number
"""
LINES = dict(enumerate(CODE.splitlines(), 1))
ERRORS = {number for number, line in LINES.items() if line.endswith("# E")}
REVEALED = {
    number: line.partition("# ")[2]
    for number, line in LINES.items()
    if line.strip().startswith("reveal_type")
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "network.py"
    path.write_text(CODE)
    return path


def check(errors, revealed):
    assert set(errors) == ERRORS, errors
    for number, name in REVEALED.items():
        assert re.search(rf"\b{name}\b", revealed[number]), LINES[number]
    assert not any("Any" in text for text in revealed.values())


def test_mypy(file, monkeypatch):
    monkeypatch.setenv("MYPYPATH", ":".join(PATHS))
    cache = f"--cache-dir={ROOT / '.mypy_cache'}"
    hosts = file.parent / "hosts.py"
    hosts.write_text(HOSTS)
    found, problem, _ = api.run([str(file), str(hosts), "--config-file=", cache])
    assert not problem
    wrong = re.findall(r"hosts\.py:(\d+): error", found)
    assert wrong == [str(len(HOSTS.splitlines()))]
    lines = re.findall(r"^.*network\.py:(\d+): (\w+): (.*)$", found, re.MULTILINE)
    errors = {int(n): text for n, kind, text in lines if kind == "error"}
    revealed = {int(n): t for n, _, t in lines if t.startswith("Revealed type is")}
    check(errors, revealed)


def test_pyright(file):
    config = {"extraPaths": PATHS}
    (file.parent / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "pyright", "--outputjson"]
    command += ["--pythonpath", sys.executable, "-p", str(file.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{") and "version" not in done.stdout:
        pytest.skip(f"pyright has to be downloaded, and cannot: {done.stderr[-200:]}")
    found = json.loads(done.stdout)["generalDiagnostics"]
    of = lambda kind: {
        each["range"]["start"]["line"] + 1: each["message"]
        for each in found
        if each["severity"] == kind
    }
    check(of("error"), of("information"))


def completions(code):
    script = jedi.Script(code, path=HOME / "made_up.py", project=jedi.Project(HOME))
    line = code.splitlines()[-1]
    return script, {c.name for c in script.complete(len(code.splitlines()), len(line))}


def test_an_editor_completes_layers_and_arguments():
    head = "import hk_bridge\nfrom hk_bridge import nn\n"
    assert "Dense" in completions(f"{head}nn.De")[1]
    assert {"use_bias=", "kernel_init="} <= completions(f"{head}nn.Dense(3, ")[1]
    assert "epsilon=" in completions(f"{head}nn.LayerNorm(eps")[1]
    assert "initial_state" in completions(f"{head}nn.LSTMCell(3).ini")[1]
    assert "attend" in completions(f"{head}nn.Embed(3, 4).att")[1]
    assert {"features", "module", "variables"} <= completions(f"{head}nn.Dense(3).")[1]
    assert "initializer" in completions("import hk_bridge\nhk_bridge.init")[1]
    script, _ = completions(f"{head}nn.Dense(3, ")
    (signature,) = script.get_signatures(3, len("nn.Dense(3, "))
    names = [p.name for p in signature.params]
    assert names[:2] == ["features", "use_bias"]


def test_an_editor_completes_wrapped_classes():
    head = """
import hk_bridge, flax.linen as nn

class Flax(nn.Module):
    width: int = 3
    def encode(self, x):
        return x

@hk_bridge.wrap
class Other(nn.Module):
    depth: int = 3

Net = hk_bridge.wrap(Flax)
Embed = hk_bridge.wrap(nn.Embed)
"""
    assert "width=" in completions(f"{head}Net(wi")[1]
    found = completions(f"{head}Net().")[1]
    assert {"encode", "width", "module", "params_dict"} <= found
    assert "encode" in completions(f"{head}Net().module.")[1]
    assert "depth=" in completions(f"{head}Other(de")[1]
    assert "num_embeddings=" in completions(f"{head}Embed(num")[1]
    assert "attend" in completions(f"{head}Embed(3, 4).")[1]


# The stub.


def test_the_stub_is_current():
    written = stub.PATH.read_text()
    names = set(re.findall(r"^(?:class )?(\w+)(?:\(| = )", written, re.MULTILINE))
    assert set(hk_bridge.nn.__all__) <= names
    if stub.VERSION in written:  # another release of Flax has other fields
        assert written == stub.text(), "run python -m tests.stub"


@pytest.mark.parametrize("name", ["Dense", "Conv", "LayerNorm", "LSTMCell", "Embed"])
def test_the_stub_has_what_every_release_has(name):
    written = stub.PATH.read_text()
    body = re.search(rf"^class {name}\(.*?(?=^class |\Z)", written, re.M | re.S)[0]
    assert f"def module(self) -> _linen.{name}" in body
    assert "def __call__" in body
    first = next(iter(getattr(nn, name).__dataclass_fields__))
    assert f"{first}:" in body


def test_the_stub_is_shipped():
    configuration = (ROOT / "setup.cfg").read_text()
    assert "hk_bridge = py.typed, *.pyi" in configuration
