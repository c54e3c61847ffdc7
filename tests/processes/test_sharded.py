"""Sharded checkpoints: eight devices save, four or two processes load; killed saves."""

import json
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import test_distributed

from hk_bridge import migrate

# A bridged network that is born sharded, as all scripts below build it.
NETWORK = """
import json, os, sys
import flax.linen as nn, haiku as hk, jax, jax.numpy as jnp, numpy as np
import hk_bridge
from hk_bridge import migrate
from hk_bridge.sharding import named_shardings, partition_specs

init = nn.with_logical_partitioning(nn.initializers.normal(1.0), ("embed", "mlp"))
module = nn.Dense(64, kernel_init=init)
f = hk.transform_with_state(lambda x: hk_bridge.FlaxModule(module, name="net")(x))
X = np.ones([8, 32], np.float32)

def on(devices):
    auto = (jax.sharding.AxisType.Auto,) * 2
    shape = (len(devices) // 2, 2)
    mesh = jax.make_mesh(shape, ("data", "model"), axis_types=auto, devices=devices)
    rules = [("embed", "data"), ("mlp", "model")]
    with nn.logical_axis_rules(rules):
        specs = partition_specs(f.init, jax.random.key(0), X)
    return named_shardings(mesh, specs)

def flax(params, state):
    return hk_bridge.to_flax(params, state, name="net")
"""
SAVE = (
    NETWORK
    + """
assert jax.device_count() == 8
shardings = on(jax.devices())
params, state = jax.jit(f.init, out_shardings=shardings)(jax.random.key(0), X)
assert {s.data.shape for s in params["net"]["kernel"].addressable_shards} == {(8, 32)}
migrate.save(sys.argv[1], flax(params, state))
np.savez(sys.argv[2], **params["net"])
"""
)
# Loads, applies, and tells how much of the kernel this process holds.
LOAD = (
    NETWORK
    + """
path, whole = sys.argv[1], dict(np.load(sys.argv[2]))
shardings = on(jax.devices())
loaded = migrate.load(path, shardings=flax(*shardings))
params, state = hk_bridge.to_haiku(loaded, name="net")
kernel = params["net"]["kernel"]
assert kernel.sharding.is_equivalent_to(shardings[0]["net"]["kernel"], 2)
shards = kernel.addressable_shards
for shard in shards:
    np.testing.assert_array_equal(shard.data, whole["kernel"][shard.index])
local = sum(shard.data.size for shard in shards)
y, _ = jax.jit(f.apply)(params, state, None, X)
for shard in y.addressable_shards:
    expected = (X @ whole["kernel"] + whole["bias"])[shard.index]
    np.testing.assert_allclose(shard.data, expected, rtol=0, atol=1e-4)
print(json.dumps([jax.device_count(), len(shards), local, kernel.size]))
"""
)
TOGETHER = """
import sys
import jax
address, process = sys.argv[-2], int(sys.argv[-1])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(
    address, 2, process, cluster_detection_method="deactivate",
    coordinator_bind_address=address, initialization_timeout=30,
    heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10,
)
"""
TIME = 120


def start(code, devices, *args):
    environment = test_distributed.environment() | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, "-c", code, *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def finished(*processes):
    """What each process printed; all are reaped, whatever happens."""
    try:
        told = []
        for process in processes:
            out, error = process.communicate(timeout=TIME)
            assert process.returncode == 0, error
            told.append(out)
        return told
    finally:
        for process in processes:
            process.kill()
            process.wait()


def started_together(code, *args):
    """Two processes of `jax.distributed`, with two devices each."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*port.getsockname())
    return [start(TOGETHER + code, 2, *args, address, i) for i in (0, 1)]


def together(code, *args):
    return finished(*started_together(code, *args))


def ended(*processes):
    """The exit codes of processes, of which one is lost; all are reaped."""
    try:
        for process in processes:
            process.communicate(timeout=TIME)
        return [process.returncode for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module", params=["net", "net.safetensors"])
def saved(request, tmp_path_factory):
    """A checkpoint that a process with eight devices wrote, and its leaves."""
    folder = tmp_path_factory.mktemp("saved")
    path, whole = folder / request.param, folder / "whole.npz"
    finished(start(SAVE, 8, path, whole))
    return path, whole


def test_eight_devices_save_and_four_load(saved):
    (told,) = finished(start(LOAD, 4, *saved))
    assert json.loads(told) == [4, 4, 2048, 2048]
    with np.load(saved[1]) as whole:  # and no device at all
        np.testing.assert_array_equal(
            migrate.load(saved[0])["params"]["kernel"], whole["kernel"]
        )


def test_eight_devices_save_and_two_processes_load(saved):
    """Each process gets its own shards, half of the kernel."""
    told = together(LOAD, *saved)
    assert [json.loads(line.splitlines()[-1]) for line in told] == [
        [4, 2, 1024, 2048]
    ] * 2


# Each process reads its own shards: of Orbax, not even the bytes of others.
READS = """
import json, pathlib, sys
import jax, numpy as np
import orbax.checkpoint
from hk_bridge import migrate

def read():
    text = pathlib.Path("/proc/self/io").read_text()
    return int(text.split("rchar: ")[1].split()[0])

path, small = sys.argv[1], sys.argv[2]
auto = (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=auto)
split = jax.NamedSharding(mesh, jax.P("data"))
migrate.load(small, shardings=split)  # so that all code is read
before = read()
w = migrate.load(path, shardings=split)["params"]["w"]
jax.block_until_ready(w)
print(json.dumps([read() - before, w.nbytes]))
"""
WRITE = """
import sys
import jax, numpy as np
from hk_bridge import migrate
auto = (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((8,), ("data",), axis_types=auto)
split = jax.NamedSharding(mesh, jax.P("data"))
for path, size in zip(sys.argv[1:], (4096, 8)):
    whole = np.random.default_rng(0).normal(size=(size, 1024)).astype(np.float32)
    migrate.save(path, {"params": {"w": jax.device_put(whole, split)}})
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of reads")
def test_each_process_reads_its_own_shards_alone(tmp_path):
    paths = tmp_path / "large", tmp_path / "small"
    finished(start(WRITE, 8, *paths))
    told = together(READS, *paths)
    for line in told:
        read, size = json.loads(line.splitlines()[-1])
        print(f"{read / size:.2f} of {size / 1e6:.0f} MB read")
        assert 0.4 * size < read < 0.65 * size  # it is of random numbers


# A save is killed, and the run goes on.

TRAIN = (
    NETWORK
    + """
import pathlib, signal, threading
folder, lose = pathlib.Path(sys.argv[1]), sys.argv[2] == str(jax.process_index())
STEPS = 3

class Big(nn.Module):
    @nn.compact
    def __call__(self):
        init = nn.with_partitioning(nn.initializers.normal(1.0), ("data", "model"))
        return self.param("w", init, (4096, 2048)).sum()

f = hk.transform_with_state(lambda: hk_bridge.FlaxModule(Big(), name="net")())
auto = (jax.sharding.AxisType.Auto,) * 2
mesh = jax.make_mesh((jax.device_count() // 2, 2), ("data", "model"), axis_types=auto)
shardings, _ = named_shardings(mesh, partition_specs(f.init, jax.random.key(0)))
step_fn = jax.jit(
    lambda params, step: jax.tree.map(lambda w: 0.5 * w + step, params),
    out_shardings=shardings,
)

def kill_while_writing(name):
    while True:  # until a file of the checkpoint has bytes of its arrays
        for file in folder.glob(f".{name}.*/**/d/*"):
            try:
                if file.stat().st_size:
                    os.kill(os.getpid(), signal.SIGKILL)
            except OSError:
                pass

steps = [int(p.name.partition("_")[2]) for p in folder.glob("step_*")]
last = max(steps, default=0)
if last:
    variables = migrate.load(folder, shardings=flax(shardings, {}))
    params, _ = hk_bridge.to_haiku(variables, name="net")
else:
    params, _ = jax.jit(f.init, out_shardings=(shardings, {}))(jax.random.key(0))
print("from", last, flush=True)
for step in range(last + 1, STEPS + 1):
    params = step_fn(params, step)
    name = f"step_{step}"
    if lose and step == 2:
        threading.Thread(target=kill_while_writing, args=[name], daemon=True).start()
    migrate.save(folder / name, flax(params, {}))
print("done", flush=True)
"""
)


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.weekly), 2])
def test_a_sharded_save_is_killed_and_the_run_goes_on(processes, tmp_path):
    def run(folder, lose="none"):
        if processes == 1:
            return [start(TRAIN, 8, folder, lose)]
        return started_together(TRAIN, folder, lose)

    whole, folder = tmp_path / "whole", tmp_path / "run"
    whole.mkdir()
    folder.mkdir()
    finished(*run(whole))
    lost = processes - 1  # process 0 coordinates the others
    codes = ended(*run(folder, lost))
    assert codes[lost] == -signal.SIGKILL
    assert all(code != 0 for code in codes)
    names = sorted(path.name for path in folder.iterdir() if path.name[0] != ".")
    assert names == ["step_1"]
    one = migrate.load(folder)["params"]["w"]
    np.testing.assert_array_equal(one, migrate.load(whole / "step_1")["params"]["w"])
    told = finished(*run(folder))
    assert all("from 1\n" in out and out.endswith("done\n") for out in told)
    ours, theirs = (migrate.load(path)["params"]["w"] for path in (folder, whole))
    np.testing.assert_array_equal(ours, theirs)
