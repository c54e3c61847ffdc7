"""Saves that are killed at random moments, and saves to one path at the same time."""

import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import test_distributed

from hk_bridge import migrate

# Saves one tree after the other to one path, each of one number, and tells of each.
WRITER = """
import sys
import numpy as np
import jax
from hk_bridge import migrate
from hk_bridge.migrate.formats import sharded
sharded.SHARD_SIZE = 500_000
path, side, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
def save(number):
    leaves = {f"w{i}": np.full(100_000, number, np.float32) for i in range(5)}
    target = path.replace("#", str(number))
    if side == "haiku":
        migrate.save_haiku(target, {"mlp/~/a": leaves}, {"n": leaves})
    else:
        migrate.save(target, {"params": leaves, "batch_stats": {"n": leaves}})
print("ready", flush=True)
for number in range(first, first + 10_000):
    save(number)
    print(number, flush=True)
"""
PLACES = {
    "npz": "net.npz",
    "msgpack": "net.msgpack",
    "safetensors": "net.safetensors",
    "orbax": "net_#",  # a directory is never replaced
    "sharded": "#/model.safetensors.index.json",
}
KILLS = 6


def environment():
    return {**os.environ, "JAX_PLATFORMS": "cpu"}


def numbers(place, side):
    """The numbers that the leaves of a checkpoint have."""
    if side == "haiku":
        params, state = migrate.load_haiku(place)
        leaves = [*params["mlp/~/a"].values(), *state["n"].values()]
    else:
        loaded = migrate.load(place)
        leaves = [*loaded["params"].values(), *loaded["batch_stats"]["n"].values()]
    assert len(leaves) == 10
    return {float(number) for leaf in leaves for number in np.unique(leaf)}


def check_whole(folder, kind, side, least):
    """What is there is whole, and of a save that was told, or of the one after."""
    places = [place for place in sorted(folder.iterdir()) if place.name[0] != "."]
    if kind == "orbax":
        for place in places:
            assert numbers(place, side) == {float(place.name.partition("_")[2])}
        assert len(places) >= least
        return
    if kind == "sharded":
        for place in places:
            index = place / "model.safetensors.index.json"
            if index.exists():
                assert numbers(place, side) == {float(place.name)}
        return
    assert [place.name for place in places] == [PLACES[kind]] or least == 0
    for place in places:
        (number,) = numbers(place, side)
        assert number in (least - 1, least)


CASES = [(kind, side) for kind in PLACES for side in ("flax", "haiku")]
CASES.remove(("sharded", "haiku"))  # no names of Haiku's fit in there
# A file, a folder and parts; the others each week, as they take long.
OFTEN = [("npz", "flax"), ("orbax", "haiku"), ("sharded", "flax")]
EACH = [
    pytest.param(*case, marks=[] if case in OFTEN else pytest.mark.weekly)
    for case in CASES
]


@pytest.mark.parametrize(("kind", "side"), EACH)
def test_a_save_is_killed_at_any_moment(kind, side, tmp_path):
    random.seed(f"{kind} {side}")
    path = str(tmp_path / PLACES[kind])
    saved = 0
    if kind == "sharded":
        for number in range(2000):
            (tmp_path / str(number)).mkdir()
    for _ in range(KILLS):
        command = [sys.executable, "-c", WRITER, path, side, str(saved)]
        with subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "ready\n"
            time.sleep(random.uniform(0.0, 0.25))
            process.send_signal(signal.SIGKILL)
            told = process.stdout.read().split()
        saved = int(told[-1]) + 1 if told else saved
        check_whole(tmp_path, kind, side, saved)
        if kind == "orbax" and (tmp_path / f"net_{saved}").exists():
            saved += 1  # it was there, but not told
        if kind == "sharded":
            saved += 1  # what it began is not begun again


ONCE = """
import sys, time
import numpy as np
from hk_bridge import migrate
path, number, start = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
leaves = {f"w{i}": np.full(50_000, number, np.float32) for i in range(20)}
import orbax.checkpoint, jax
print("ready", flush=True)
sys.stdin.readline()
try:
    migrate.save(path, {"params": leaves})
except FileExistsError as error:
    print("exists", error)
else:
    print("saved")
"""


OTHERS = ("net", "net.npz", "net.msgpack")
weekly = [pytest.param(name, marks=pytest.mark.weekly) for name in OTHERS]


@pytest.mark.parametrize("name", ["net.safetensors", *weekly])
def test_saves_to_one_path_do_not_mix(name, tmp_path):
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", ONCE, str(folder / name), str(i), "0"],
                env=environment(),
                **pipes,
            )
            for i in (1, 2)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        told = [process.communicate(timeout=60)[0].split()[0] for process in processes]
        assert "saved" in told
        found = {
            float(value)
            for leaf in migrate.load(folder / name)["params"].values()
            for value in np.unique(leaf)
        }
        assert len(found) == 1, found
        if name == "net":
            assert sorted(told) == ["exists", "saved"]
            assert found == {1.0 + told.index("saved")}
        assert os.listdir(folder) == [name]


# One tree that two processes of `jax.distributed` hold, saved by both to one path.
TOGETHER = """
import sys
import jax
import numpy as np
from hk_bridge import migrate

address, process, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(
    address, 2, process, cluster_detection_method="deactivate",
    coordinator_bind_address=address, initialization_timeout=30,
    heartbeat_timeout_seconds=10, shutdown_timeout_seconds=10,
)
auto = (jax.sharding.AxisType.Auto,)
mesh = jax.make_mesh((4,), ("data",), axis_types=auto)
split = jax.NamedSharding(mesh, jax.P("data"))
whole = np.arange(16.0, dtype=np.float32).reshape(8, 2)
leaf = jax.make_array_from_callback(whole.shape, split, whole.__getitem__)
migrate.save(path, {"params": {"w": leaf}})
loaded = migrate.load(path, shardings=split)["params"]["w"]
for shard in loaded.addressable_shards:
    np.testing.assert_array_equal(shard.data, whole[shard.index])
try:
    migrate.save(path, {"params": {"w": leaf}})
except FileExistsError as error:
    print("exists")
jax.distributed.shutdown()
print("done")
"""


def test_processes_save_one_tree_together(tmp_path):
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*port.getsockname())
        processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    TOGETHER,
                    address,
                    str(i),
                    str(tmp_path / "net"),
                ],
                env=test_distributed.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in (0, 1)
        ]
        try:
            for process in processes:
                out, err = process.communicate(timeout=90)
                assert process.returncode == 0, err
                assert out.split()[-2:] == ["exists", "done"]
        finally:
            for process in processes:
                process.kill()
    assert os.listdir(tmp_path) == ["net"]
    loaded = migrate.load(tmp_path / "net")["params"]["w"]
    np.testing.assert_array_equal(loaded, np.arange(16.0).reshape(8, 2))
