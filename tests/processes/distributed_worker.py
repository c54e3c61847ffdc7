"""One of the processes that train a Haiku network of Flax blocks together.

Run `python distributed_worker.py ADDRESS PROCESS PROCESSES FOLDER` for each PROCESS
from 0; all their devices are one mesh. If a process is lost, the others end. Run all
again: training goes on from the last checkpoint in FOLDER, to the same weights as
without the loss.
"""

import argparse
import os
import pathlib
import signal
import sys
import traceback

import flax.linen as nn
import haiku as hk
import jax
import numpy as np
import optax
import orbax.checkpoint as ocp

import hk_bridge

STEPS, SAVE_EVERY, BATCH = 6, 2, 32


class Block(nn.Module):
    """A linen block with params, state and keys: `[B, C] -> [B, F]`."""

    features: int

    @nn.compact
    def __call__(self, x, train):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(self.features)(x))
        return nn.Dropout(0.2, deterministic=not train)(nn.relu(x))


def network(x, train):
    """The Haiku network: logits `[B, 10]` of `[B, 64]`."""
    x = hk_bridge.FlaxModule(Block(32), name="block")(x, train)
    return hk.Linear(10, name="head")(x)


f = hk.transform_with_state(network)
optimizer = optax.sgd(0.1, momentum=0.9)


def batch(step):
    """`x [B, 64]` and `y [B]` of all processes, which follow from the step alone."""
    rng = np.random.default_rng(step)
    y = rng.integers(10, size=BATCH, dtype=np.int32)
    x = rng.normal(size=[BATCH, 64]) + 4 * np.eye(10, 64)[y]
    return x.astype(np.float32), y


def init():
    """What a checkpoint holds."""
    init_key, key = jax.random.split(jax.random.key(0))
    params, state = f.init(init_key, np.zeros([BATCH, 64], np.float32), train=True)
    opt_state = optimizer.init(params)
    return {"params": params, "state": state, "opt_state": opt_state, "key": key}


def update(carry, x, y):
    """One step of training: the new carry, and the loss."""
    step_key, key = jax.random.split(carry["key"])

    def loss_fn(params):
        logits, state = f.apply(params, carry["state"], step_key, x, train=True)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
        return loss, state

    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, state), grads = grad_fn(carry["params"])
    updates, opt_state = optimizer.update(grads, carry["opt_state"], carry["params"])
    params = optax.apply_updates(carry["params"], updates)
    return {"params": params, "state": state, "opt_state": opt_state, "key": key}, loss


def train(folder, after_step=lambda step: None):
    """The carry at the end, whole on each device, and the losses of the steps run."""
    mesh = jax.make_mesh(
        (jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    split = jax.NamedSharding(mesh, jax.P("data"))
    whole = jax.NamedSharding(mesh, jax.P())
    # A device holds a part of each matrix, and of each batch; the rest it holds whole.
    placement = jax.tree.map(
        lambda leaf: split if leaf.ndim == 2 else whole, jax.eval_shape(init)
    )
    init_fn = jax.jit(init, out_shardings=placement)
    step_fn = jax.jit(update, out_shardings=(placement, whole), donate_argnums=0)
    losses = []
    options = ocp.CheckpointManagerOptions(
        save_interval_steps=SAVE_EVERY, enable_async_checkpointing=False
    )
    with ocp.CheckpointManager(folder, options=options) as checkpoints:
        last = checkpoints.latest_step() or 0
        if last:
            like = ocp.args.StandardRestore(jax.eval_shape(init_fn))
            carry = checkpoints.restore(last, args=like)
        else:
            carry = init_fn()
        for step in range(last + 1, STEPS + 1):
            x, y = (
                jax.make_array_from_callback(part.shape, split, part.__getitem__)
                for part in batch(step)
            )
            carry, loss = step_fn(carry, x, y)
            losses.append(float(loss))
            print(f"step {step}: loss {losses[-1]:.4f}", flush=True)
            after_step(step)
            checkpoints.save(step, args=ocp.args.StandardSave(carry))
    return jax.jit(lambda tree: tree, out_shardings=whole)(carry), losses


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address", help="of process 0, such as 127.0.0.1:1234")
    parser.add_argument("process", type=int)
    parser.add_argument("processes", type=int)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--lose", nargs=2, metavar=("STEP", "SIGNAL"), help="by itself")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(
        args.address,
        args.processes,
        args.process,
        cluster_detection_method="deactivate",
        coordinator_bind_address=args.address,
        initialization_timeout=30,
        heartbeat_timeout_seconds=10,  # from then on JAX aborts a process that waits
        shutdown_timeout_seconds=10,
    )

    def after_step(step):
        if args.lose and step == int(args.lose[0]):
            os.kill(os.getpid(), signal.Signals[args.lose[1]])

    try:
        carry, losses = train(args.folder / "checkpoints", after_step)
    except jax.errors.JaxRuntimeError:
        traceback.print_exc()
        print(
            f"process {args.process} ends: the others are out of reach, as told above. "
            f"Run all again, and training goes on from the checkpoint in {args.folder}",
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)  # exit handlers would wait for the lost process
    carry["key"] = jax.random.key_data(carry["key"])
    leaves = {jax.tree_util.keystr(k): v for k, v in jax.tree.leaves_with_path(carry)}
    np.savez(args.folder / f"process_{args.process}.npz", losses=losses, **leaves)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main()
