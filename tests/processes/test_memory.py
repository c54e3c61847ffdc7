"""How much memory and time a load takes, beside what the file itself is."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from hk_bridge import migrate

# Loads a file in a process of its own, reads each leaf, and tells the peak of memory.
LOAD = """
import json, sys, time
import jax, numpy as np
import orbax.checkpoint
from hk_bridge import migrate

def status(name):
    for line in open("/proc/self/status"):
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024

path, small, haiku = sys.argv[1], sys.argv[2], sys.argv[3] == "haiku"
load = migrate.load_haiku if haiku else migrate.load
load(small)
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before, start = status("VmRSS"), time.process_time()
loaded = load(path)
seconds = time.process_time() - start  # others may use the machine, too
leaves = jax.tree.leaves(loaded)
total = sum(float(leaf.sum()) for leaf in leaves)
print(json.dumps({"peak": status("VmHWM") - before, "seconds": seconds,
                  "total": total, "count": len(leaves)}))
"""


def measured(path, small, side="flax"):
    command = [sys.executable, "-c", LOAD, str(path), str(small), side]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


LIMITS = {".safetensors": 0.05, ".npz": 0.10, ".msgpack": 1.10}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells of memory")
@pytest.mark.parametrize(
    "side", ["flax", pytest.param("haiku", marks=pytest.mark.weekly)]
)
@pytest.mark.parametrize("suffix", LIMITS)
def test_memory_above_the_files_own_size(suffix, side, tmp_path):
    rng = np.random.default_rng(0)
    leaves = {f"w{i}": rng.random(2**20, np.float32) for i in range(50)}
    path, small = tmp_path / f"large{suffix}", tmp_path / f"small{suffix}"
    save = {
        "flax": lambda path, leaves: migrate.save(path, {"params": leaves}),
        "haiku": lambda path, leaves: migrate.save_haiku(path, {"a": leaves}),
    }[side]
    save(path, leaves)
    save(small, {"w": np.ones(1)})
    size = path.stat().st_size
    found = measured(path, small, side)
    above = found["peak"] / size - 1
    print(f"{suffix} {side}: {above:.1%} above {size / 1e6:.0f} MB")
    assert above < LIMITS[suffix]
    expected = sum(float(leaf.sum()) for leaf in leaves.values())
    assert found["total"] == pytest.approx(expected)


SECONDS = {".msgpack": 30, ".safetensors": 40, ".npz": 80}


@pytest.mark.weekly
@pytest.mark.parametrize("suffix", SECONDS)
def test_a_million_small_leaves(suffix, tmp_path):
    leaf = np.ones(1, np.float32)
    names = [str(i) for i in range(1000)]
    tree = {a: dict.fromkeys(names, leaf) for a in names}
    path, small = tmp_path / f"many{suffix}", tmp_path / f"small{suffix}"
    migrate.save(path, {"params": tree})
    migrate.save(small, {"params": {"w": leaf}})
    found = measured(path, small)
    print(f"{suffix}: {found['count']} leaves in {found['seconds']:.1f} s of CPU")
    assert found["count"] == found["total"] == 1_000_000
    assert found["seconds"] < SECONDS[suffix]
