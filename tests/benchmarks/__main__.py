"""`python -m tests.benchmarks [--quick] [--json FILE]`: what a bridge costs.

Each row has what `hk_bridge` is to cost at most, and the figures: ratios to native
Flax, measured side by side in one process, of medians over interleaved rounds. Rounds
run at several depths of Python's stack, which grows in chunks: where it is often at the
end of one, tracing takes up to 1.8 times as long, natively or bridged. What is alive
before is frozen meanwhile: Python's collector would walk all of JAX in some round or
other, for 85 ms. Structure (equations, compilations, passes) is not measured here but
tested, by the laws.
"""

import argparse
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import flax
import flax.linen as nn
import haiku as hk
import jax
import jaxlib

import hk_bridge
from tests.benchmarks import models
from tests.benchmarks import nnx_models

Thunk = Callable[[], Any]
lift = hk.experimental.flax.lift


def seconds(thunk: Thunk) -> float:
    start = time.perf_counter()
    jax.block_until_ready(thunk())
    return time.perf_counter() - start


@contextlib.contextmanager
def frozen() -> Iterator[None]:
    """Has Python's collector leave alone what is alive now."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


DEPTHS = range(0, 128, 16)  # a chunk of Python's stack has room for about 130 frames


def below(frames: int, thunk: Thunk) -> Any:
    """Calls `thunk` this many frames further down."""
    return below(frames - 1, thunk) if frames else thunk()


def ratios(thunks: dict[str, Thunk], rounds: int) -> dict[str, float]:
    """Each one's time, the mean over all depths, as a ratio to that of `flax`."""
    for thunk in thunks.values():
        seconds(thunk)  # what is made once
    times: dict[Any, list[float]] = {(n, d): [] for n in thunks for d in DEPTHS}
    order = list(thunks)
    with frozen():
        for i in range(max(rounds, len(DEPTHS))):
            depth = DEPTHS[i % len(DEPTHS)]
            for name in order[i % len(order) :] + order[: i % len(order)]:
                thunk = functools.partial(below, depth, thunks[name])
                times[name, depth].append(seconds(thunk))
    mean = {
        name: statistics.mean(statistics.median(times[name, d]) for d in DEPTHS)
        for name in thunks
    }
    result = {name: mean[name] / mean["flax"] for name in thunks}
    return {**result, "flax_ms": 1e3 * mean["flax"]}


def flat(lengths: tuple[int, ...], rounds: int) -> dict[str, dict[str, float]]:
    """What a module costs in chains of these lengths, the most to the least."""
    chains = {n: chain(n) for n in lengths}
    table = {}
    for what in ("apply trace", "init trace"):
        thunks = {
            (name, n): chains[n][what][name]
            for name in ("flax", "hk_bridge")
            for n in lengths
        }
        for thunk in thunks.values():
            thunk()
        costs: dict[Any, list[float]] = {at: [] for at in thunks}
        with frozen():
            for _ in range(rounds):
                for (name, n), thunk in thunks.items():
                    repeats = max(1, 100 // n)
                    total = sum(seconds(thunk) for _ in range(repeats))
                    costs[name, n].append(total / repeats / n)
        us = {at: 1e6 * statistics.median(cost) for at, cost in costs.items()}
        growth = {}
        for name in ("hk_bridge", "flax"):
            of_one = [cost for at, cost in us.items() if at[0] == name]
            growth[f"{name}_growth"] = max(of_one) / min(of_one)
        table[what] = growth | {f"{name}_{n}_us": us[name, n] for name, n in us}
    return table


def trace(f: Callable[..., Any], *args: Any) -> Thunk:
    """Traces `f` anew each time it is called."""

    def thunk() -> None:
        jax.make_jaxpr(lambda *args: f(*args))(*args)

    return thunk


def ours(module: nn.Module, **kwargs: Any) -> Callable[..., Any]:
    return lambda *args: hk_bridge.FlaxModule(module, name="net")(*args, **kwargs)


def theirs(module: nn.Module, **kwargs: Any) -> Callable[..., Any]:
    return lambda *args: lift(module, name="net")(*args, **kwargs)


def apply_and_init(
    module: nn.Module, *args: Any, **kwargs: Any
) -> dict[str, dict[str, Thunk]]:
    """The thunks that trace `apply` and `init`, and that run `init` eagerly.

    Where `lift` cannot run the module, it has none."""
    key = models.KEY
    init = functools.partial(module.init, **kwargs)
    keys = {"params": key, "dropout": key}
    variables = jax.eval_shape(init, keys, *args)
    mutable = [c for c in variables if c != "params"]
    table: dict[str, dict[str, Thunk]] = {"apply trace": {}, "init trace": {}}
    table["init eager"] = {"flax": lambda: init(keys, *args)}
    table["apply trace"]["flax"] = trace(
        lambda v, *args: module.apply(v, *args, mutable=mutable, rngs=keys, **kwargs),
        variables,
        *args,
    )
    table["init trace"]["flax"] = trace(init, keys, *args)
    for name, make in {"hk_bridge": ours, "lift": theirs}.items():
        f = hk.transform_with_state(make(module, **kwargs))
        apply = functools.partial(lambda f, p, s, *xs: f.apply(p, s, key, *xs), f)
        try:
            params, state = jax.eval_shape(f.init, key, *args)
            jax.eval_shape(apply, params, state, *args)
        except Exception:
            if name == "hk_bridge":
                raise
            continue
        table["apply trace"][name] = trace(apply, params, state, *args)
        table["init trace"][name] = trace(f.init, key, *args)
        table["init eager"][name] = functools.partial(f.init, key, *args)
    return table


def chain(n: int) -> dict[str, dict[str, Thunk]]:
    """`n` layer norms: one by one in a Haiku transform, and in one Flax module."""
    x, key = models.VECTORS, models.KEY
    makers: dict[str, Callable[[int], Any]] = {
        "hk_bridge": lambda i: hk_bridge.nn.LayerNorm(),
        "lift": lambda i: lift(nn.LayerNorm(), name=f"n{i}"),
        "haiku": lambda i: hk.LayerNorm(-1, True, True),
    }
    module = models.Chain(n)
    variables = module.init(key, x)
    table = {
        "apply trace": {"flax": trace(module.apply, variables, x)},
        "init trace": {"flax": trace(module.init, key, x)},
    }
    for name, make in makers.items():

        def forward(x: Any, make: Callable[[int], Any] = make) -> Any:
            for i in range(n):
                x = make(i)(x)
            return x

        f = hk.transform(forward)
        params = f.init(key, x)
        table["apply trace"][name] = trace(
            functools.partial(lambda f, p, x: f.apply(p, None, x), f), params, x
        )
        table["init trace"][name] = trace(f.init, key, x)
    return table


def shared(n: int, make: Callable[[], Any], x: Any) -> Thunk:
    """Traces `n` equal modules under `share_traces`."""

    def forward(x: Any) -> Any:
        with hk_bridge.share_traces():
            for _ in range(n):
                x = make()(x)
        return x

    f = hk.transform(forward)
    params = f.init(models.KEY, x)
    return trace(lambda p, x: f.apply(p, None, x), params, x)


def shared_norms(n: int) -> dict[str, Thunk]:
    """`n` bridged layer norms under `share_traces`."""
    thunks = chain(n)["apply trace"]
    thunk = shared(n, lambda: hk_bridge.nn.LayerNorm(), models.VECTORS)
    return {"flax": thunks["flax"], "hk_bridge": thunk, "haiku": thunks["haiku"]}


def shared_blocks(n: int) -> dict[str, Thunk]:
    """A transformer of `n` bridged blocks under `share_traces`."""
    module, x = models.Transformer(n), models.TOKENS
    variables = module.init(models.KEY, x)
    return {
        "flax": trace(module.apply, variables, x),
        "hk_bridge": shared(n, lambda: hk_bridge.FlaxModule(models.Block()), x),
    }


def transformed(
    forward: Callable[[Any], Any], x: Any
) -> dict[str, tuple[Callable[..., Any], Any]]:
    """`forward` in a transform, without and with `share_traces`, with its inputs."""

    def sharing(x: Any) -> Any:
        with hk_bridge.share_traces():
            return forward(x)

    made = {}
    for name, function in {"haiku": forward, "hk_bridge": sharing}.items():
        f = hk.transform(function)
        params = f.init(models.KEY, x)
        made[name] = (
            functools.partial(lambda f, p, x: f.apply(p, models.KEY, x), f),
            params,
        )
    return made


def shared_inside(
    module: nn.Module, **kwargs: Any
) -> dict[str, tuple[Callable[..., Any], Any]]:
    """One module of many equal blocks: natively, and bridged with `share_traces`."""
    x, key = models.TOKENS, models.KEY
    keys = {"params": key, "dropout": key}
    variables = module.init(keys, x, **kwargs)
    sides = transformed(ours(module, **kwargs), x)
    native = lambda v, x: module.apply(v, x, rngs={"dropout": key}, **kwargs)
    return {"flax": (native, variables), "hk_bridge": sides["hk_bridge"]}


def shared_haiku(n: int) -> dict[str, tuple[Callable[..., Any], Any]]:
    """`n` blocks of Haiku's own; `flax` is Haiku without `share_traces`."""

    def forward(x: Any) -> Any:
        for _ in range(n):
            x = models.HaikuBlock()(x)
        return x

    sides = transformed(forward, models.TOKENS)
    return {"flax": sides["haiku"], "hk_bridge": sides["hk_bridge"]}


def traced(sides: dict[str, tuple[Callable[..., Any], Any]]) -> dict[str, Thunk]:
    return {name: trace(f, p, models.TOKENS) for name, (f, p) in sides.items()}


def lowered(sides: dict[str, tuple[Callable[..., Any], Any]]) -> dict[str, Thunk]:
    """Lowers the gradient of a loss anew each time."""

    def thunk(f: Callable[..., Any], params: Any) -> None:
        loss = lambda p, x: (f(p, x) ** 2).mean()
        jax.jit(jax.grad(loss)).lower(params, models.TOKENS)

    return {name: functools.partial(thunk, *side) for name, side in sides.items()}


def eager() -> dict[str, Thunk]:
    """One small layer, called without jit."""
    x = models.jnp.ones([2, 8, 8, 16])
    module = nn.GroupNorm(4, epsilon=1e-5, dtype=models.jnp.float32)
    variables = module.init(models.KEY, x)
    f = hk.transform(lambda x: hk_bridge.nn.GroupNorm(num_groups=4)(x))
    params = f.init(models.KEY, x)
    g = hk.transform(lambda x: lift(module, name="net")(x))
    lifted = g.init(models.KEY, x)
    return {
        "flax": lambda: module.apply(variables, x),
        "hk_bridge": lambda: f.apply(params, None, x),
        "lift": lambda: g.apply(lifted, None, x),
    }


def losses(module: nn.Module, x: Any) -> dict[str, tuple[Callable[..., Any], Any]]:
    """For each: a loss, and the parameters that it is a function of."""
    variables = module.init(models.KEY, x)
    f = hk.transform_with_state(ours(module))
    params, state = f.init(models.KEY, x)
    rest = {c: v for c, v in variables.items() if c != "params"}

    def flax_loss(p: Any) -> Any:
        y, _ = module.apply({"params": p, **rest}, x, mutable=list(rest))
        return (y**2).mean()

    def our_loss(p: Any) -> Any:
        return (f.apply(p, state, None, x)[0] ** 2).mean()

    return {"flax": (flax_loss, variables["params"]), "hk_bridge": (our_loss, params)}


def step(module: nn.Module, x: Any) -> dict[str, Thunk]:
    """A jitted forward and backward pass: at run time."""
    return {
        name: functools.partial(jax.jit(jax.grad(loss)), params)
        for name, (loss, params) in losses(module, x).items()
    }


def instructions(module: nn.Module, x: Any) -> dict[str, float]:
    """How many instructions XLA makes of a forward and backward pass."""
    counts = {}
    for name, (loss, params) in losses(module, x).items():
        text = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
        counts[name] = text.count(" = ")
    return {
        "hk_bridge": counts["hk_bridge"] / counts["flax"],
        "flax_instructions": counts["flax"],
    }


def import_ms() -> float:
    """What importing hk_bridge adds to importing haiku and flax, in milliseconds.

    With what a network is built from, since names are imported when they are asked for.
    It is compiled before, as a package is where it is installed."""
    code = (
        "import time, haiku, flax, flax.linen; t = time.perf_counter(); "
        "import hk_bridge; hk_bridge.FlaxModule, hk_bridge.wrap, hk_bridge.nn; "
        "print(1e3 * (time.perf_counter() - t))"
    )
    command = [sys.executable, "-c", code]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    runs = [float(subprocess.check_output(command, env=env)) for _ in range(6)]
    return statistics.median(runs[1:])


def measure(quick: bool) -> dict[str, Any]:
    rounds = 7 if quick else 31
    results: dict[str, Any] = {}

    def show(name: str, goal: float, row: dict[str, float]) -> None:
        results[name] = {"goal": goal, **row}
        text = "".join(f"   {k} {v:8.3f}" for k, v in row.items() if k != "flax")
        print(f"{name:30} goal {goal:6.2f}{text}", flush=True)

    nets = {
        "convnet": (models.ConvNet(), models.IMAGES),
        "transformer": (models.Transformer(), models.TOKENS),
    }
    for net, (module, x) in nets.items():
        for (what, thunks), goal in zip(
            apply_and_init(module, x).items(), (0.75, 1.0, 1.0), strict=True
        ):
            show(f"{net}: {what}", goal, ratios(thunks, rounds))
        show(f"{net}: instructions", 1.0, instructions(module, x))
        show(f"{net}: step at run time", 1.0, ratios(step(module, x), 3 * rounds))
    for kind, (module, *goals) in models.KINDS.items():
        thunks = apply_and_init(module, models.TOKENS)
        for what, goal in zip(("apply trace", "init trace"), goals, strict=True):
            show(f"{kind}: {what}", goal, ratios(thunks[what], rounds))
    for case, made in models.by_others():
        if made is None:
            print(f"{case}: left out, the package is not installed")
            continue
        thunks = apply_and_init(made.module, *made.args, **made.kwargs)
        for what in ("apply trace", "init trace"):
            show(f"{case}: {what}", 1.0, ratios(thunks[what], rounds))
    for n in (10, 100) if quick else (10, 100, 800):
        for (what, thunks), goal in zip(chain(n).items(), (0.7, 1.0), strict=True):
            row = ratios(thunks, max(3, rounds * 10 // n))
            show(f"{n} LayerNorms: {what}", goal, row)
    for what, row in flat((10, 100, 800), 3 if quick else 9).items():
        show(f"10 to 800 of them: {what}", 1.15, row)
    for case, sides in nnx_models.cases((25, 50, 100, 200)):
        thunks = {
            name: trace(f, tree, nnx_models.TOKENS) for name, (f, tree) in sides.items()
        }
        show(f"{case}: apply trace", 1.1, ratios(thunks, rounds))
    show("100 shared LayerNorms", 0.35, ratios(shared_norms(100), rounds))
    show("24 shared blocks", 0.25, ratios(shared_blocks(24), rounds))
    inside = {
        "transformer of 24 blocks": (shared_inside(models.Transformer(24)), 0.2),
        "ViT of 24 blocks": (shared_inside(models.ViT(24), train=True), 0.2),
        "24 blocks of Haiku": (shared_haiku(24), 0.25),
    }
    for name, (sides, goal) in inside.items():
        show(f"{name}, shared: trace", goal, ratios(traced(sides), rounds))
        goal = max(goal, 0.5)
        show(f"{name}, shared: lower grad", goal, ratios(lowered(sides), rounds))
    show("GroupNorm: eager call", 1.1, ratios(eager(), 20 * rounds))
    show("import", 50, {"hk_bridge_ms": import_ms()})
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="under four minutes")
    parser.add_argument(
        "--json", metavar="FILE", help="also write the figures to a file"
    )
    args = parser.parse_args()
    versions = {"jax": jax, "jaxlib": jaxlib, "flax": flax}
    print({name: module.__version__ for name, module in versions.items()})
    print(f"device {jax.devices()[0].device_kind}; ratios to flax; flax_ms of one call")
    results = measure(args.quick)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
