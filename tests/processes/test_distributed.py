"""Two processes train one bridged network; one is lost, and training goes on."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys

import distributed_worker
import numpy as np
import pytest

# What the process that is left says last: the worker itself, or JAX, which aborts it.
LEFT = r"the others are out of reach|another task died"
# Runs the worker, which ends after a minute at last, and then tells where it hung. On
# Linux it also ends when this process is killed, even a stopped worker does.
LAUNCHER = """
import ctypes, faulthandler, runpy, signal, sys
faulthandler.dump_traceback_later(60, exit=True)
if sys.platform == "linux":
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def environment():
    """Nothing of what this machine or pytest sets up for JAX; strict, as here."""
    foreign = ("JAX_", "XLA_", "TF_", "GRPC_", "GLOO_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and "proxy" not in name.lower()
    }
    return kept | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # it compiles in half the time
        "JAX_NUMPY_DTYPE_PROMOTION": "strict",
        "JAX_NUMPY_RANK_PROMOTION": "raise",
    }


@contextlib.contextmanager
def reaped(process):
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run(folder, lost=None, step=None, by=None):
    """Exit codes and outputs of two processes; one may get a signal in a step."""
    folder.mkdir(exist_ok=True)
    logs = [folder / f"process_{i}.log" for i in (0, 1)]
    with contextlib.ExitStack() as stack:
        # Held, the port is nobody else's, and process 0 may listen on it all the same.
        port = stack.enter_context(socket.socket())
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*port.getsockname())
        processes = []
        for i, log in enumerate(logs):
            command = [sys.executable, "-W", "error", "-c", LAUNCHER]
            command += [distributed_worker.__file__, address, str(i), "2", str(folder)]
            command += ["--lose", str(step), by] if i == lost else []
            output = stack.enter_context(log.open("w"))
            process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=environment()
            )
            processes.append(stack.enter_context(reaped(process)))
        try:
            for i, process in enumerate(processes):
                if i != lost:
                    process.wait(timeout=75)  # by then LAUNCHER has ended it
        finally:
            for log in logs:
                print(f"--- {log.name}", log.read_text(), sep="\n")  # if the test fails
    return [process.returncode for process in processes], [x.read_text() for x in logs]


def results(folder, process=0):
    """What a process ended with, by name."""
    with np.load(folder / f"process_{process}.npz") as arrays:
        return dict(arrays)


def other_bits(ours, theirs):
    """The names under which two results differ."""
    assert ours.keys() == theirs.keys()
    return [
        name
        for name in ours.keys() - {"losses"}
        if (ours[name].dtype, ours[name].tobytes())
        != (theirs[name].dtype, theirs[name].tobytes())
    ]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The folder of two processes that trained to the end."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    codes, _ = run(folder)
    assert codes == [0, 0]
    return folder


def test_processes_hold_the_same_weights(uninterrupted):
    ours, theirs = results(uninterrupted, 0), results(uninterrupted, 1)
    assert "['params']['block/Dense_0']['kernel']" in ours
    assert "['state']['block/batch_stats/BatchNorm_0']['mean']" in ours
    assert other_bits(ours, theirs) == []
    np.testing.assert_array_equal(ours["losses"], theirs["losses"])
    assert ours["losses"][-1] < ours["losses"][0]


def test_one_process_trains_the_same(uninterrupted, tmp_path):
    _, losses = distributed_worker.train(tmp_path)
    # Eight devices add up a batch in another order than four.
    np.testing.assert_allclose(results(uninterrupted)["losses"], losses, rtol=1e-5)


def test_training_goes_on_after_losses(uninterrupted, tmp_path):
    losses = [
        (1, 3, "SIGKILL", [1, 2]),  # process 0 is left in the collectives of step 4
        (0, 4, "SIGKILL", [1, 2]),  # process 1 is left in a save, and no coordinator
        (1, 5, "SIGSTOP", [1, 2, 4]),  # no connection is closed: the heartbeat stops
    ]
    for lost, step, by, saved in losses:
        codes, outputs = run(tmp_path, lost, step, by)
        assert codes[lost] == -signal.SIGKILL
        assert outputs[lost].splitlines()[-1].startswith(f"step {step}: ")
        assert codes[1 - lost] in (1, -signal.SIGABRT)
        assert re.search(LEFT, outputs[1 - lost])
        names = [path.name for path in (tmp_path / "checkpoints").iterdir()]
        assert sorted(int(name) for name in names if name.isdecimal()) == saved
    codes, _ = run(tmp_path)
    assert codes == [0, 0]
    ours, theirs = results(tmp_path), results(uninterrupted)
    assert other_bits(ours, theirs) == []
    np.testing.assert_array_equal(ours["losses"], theirs["losses"][4:])
