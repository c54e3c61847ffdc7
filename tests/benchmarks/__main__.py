"""`python -m tests.benchmarks [--quick] [--only TEXT]`: what a bridge costs.

Each row has what `hk_bridge` is to cost at most, and the figures: ratios to native
Flax, measured side by side in one process, of medians over interleaved rounds. Rounds
run at all depths of Python's stack, which grows in chunks: where it is often at the end
of one, tracing takes up to 2.7 times as long, natively or bridged. That happens at a
fifth of the depths, at others for each side, so eight depths do not tell. What is alive
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


DEPTHS = range(0, 128, 4)  # a chunk of Python's stack has room for about 130 frames


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


def flat(what: str, lengths: tuple[int, ...], rounds: int) -> dict[str, float]:
    """What a module costs in chains of these lengths, the most to the least."""
    chains = {n: chain(n)[what] for n in lengths}
    thunks = {
        (name, n): chains[n][name] for name in ("flax", "hk_bridge") for n in lengths
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
    table = {}
    for name in ("hk_bridge", "flax"):
        of_one = [cost for at, cost in us.items() if at[0] == name]
        table[f"{name}_growth"] = max(of_one) / min(of_one)
    return table | {f"{name}_{n}_us": us[name, n] for name, n in us}


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


def stacked_blocks(n: int) -> dict[str, Thunk]:
    """Compiles a transformer of `n` blocks: unrolled in Flax, and in `layer_stack`."""
    module, x = models.Transformer(n), models.TOKENS
    block = lambda x: hk_bridge.FlaxModule(models.Block(), name="block")(x)

    def forward(x: Any) -> Any:
        x = hk.experimental.layer_stack(n, name="stack")(block)(x)
        return hk_bridge.nn.LayerNorm(name="norm")(x)

    variables = module.init(models.KEY, x)
    params, _ = hk_bridge.to_haiku(variables, name="net")
    params = hk_bridge.migrate.stack(params, "net/Block_{}", into="stack/block")
    params["norm"] = params.pop("net/LayerNorm_0")
    f = hk.transform(forward)
    return {
        "flax": compilation(module.apply, variables, x),
        "hk_bridge": compilation(lambda p, x: f.apply(p, None, x), params, x),
    }


def compilation(f: Callable[..., Any], *args: Any) -> Thunk:
    """Traces and compiles the gradient of `f` anew each time it is called."""

    def thunk() -> None:
        loss = lambda *args: (f(*args) ** 2).mean()
        jax.jit(jax.grad(loss)).lower(*args).compile()

    return thunk


def few(thunks: dict[str, Thunk], rounds: int) -> dict[str, float]:
    """The ratio of medians, of what takes too long for `ratios`."""
    times = {n: [seconds(t) for _ in range(rounds)] for n, t in thunks.items()}
    flax_s = statistics.median(times["flax"])
    ours_s = statistics.median(times["hk_bridge"])
    return {"hk_bridge": ours_s / flax_s, "flax_ms": 1e3 * flax_s}


def transformed(
    forward: Callable[[Any], Any], x: Any
) -> dict[str, tuple[Callable[..., Any], Any]]:
    """`forward` in a transform, without and with `share_traces`, with its inputs."""

    def sharing(x: Any) -> Any:
        with hk_bridge.share_traces():
            return forward(x)

    made = {}
    for name, function in {"haiku": forward, "hk_bridge": sharing}.items():
        f = hk.transform_with_state(function)
        made[name] = (
            functools.partial(lambda f, trees, x: f.apply(*trees, models.KEY, x)[0], f),
            f.init(models.KEY, x),
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


def shared_nnx(n: int) -> dict[str, tuple[Callable[..., Any], Any]]:
    """One NNX module of `n` blocks: natively, and bridged with `share_traces`."""
    module = nnx_models.Transformer(n, nnx_models.nnx.Rngs(0))
    sides = transformed(ours(module), nnx_models.TOKENS)
    return {"flax": nnx_models.native(module), "hk_bridge": sides["hk_bridge"]}


def what_sharing_adds(
    module: nn.Module, x: Any
) -> dict[str, tuple[Callable[..., Any], Any]]:
    """A bridged module with `share_traces`; `flax` is the one without."""
    sides = transformed(ours(module), x)
    return {"flax": sides["haiku"], "hk_bridge": sides["hk_bridge"]}


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


Row = tuple[str, float, Callable[[], dict[str, float]]]


def rows(quick: bool) -> Iterator[Row]:
    """The name of each row, its goal, and what measures it."""
    rounds = 7 if quick else 31

    def compared(name: str, goal: float, thunks: Any, rounds: int = rounds) -> Row:
        return name, goal, lambda: ratios(thunks, rounds)

    nets = {
        "convnet": (models.ConvNet(), models.IMAGES),
        "transformer": (models.Transformer(), models.TOKENS),
    }
    for net, (module, x) in nets.items():
        for (what, thunks), goal in zip(
            apply_and_init(module, x).items(), (0.75, 1.0, 1.0), strict=True
        ):
            yield compared(f"{net}: {what}", goal, thunks)
        counted = functools.partial(instructions, module, x)
        yield f"{net}: instructions", 1.0, counted
        yield compared(f"{net}: step at run time", 1.0, step(module, x), 3 * rounds)
    for kind, (module, *goals) in models.KINDS.items():
        thunks = apply_and_init(module, models.TOKENS)
        for what, goal in zip(("apply trace", "init trace"), goals, strict=True):
            yield compared(f"{kind}: {what}", goal, thunks[what])
    for case, made in models.by_others():
        if made is None:
            print(f"{case}: left out, the package is not installed")
            continue
        thunks = apply_and_init(made.module, *made.args, **made.kwargs)
        for what in ("apply trace", "init trace"):
            yield compared(f"{case}: {what}", 1.0, thunks[what])
    for n in (10, 100) if quick else (10, 100, 800):
        for (what, thunks), goal in zip(chain(n).items(), (0.7, 1.0), strict=True):
            yield compared(f"{n} LayerNorms: {what}", goal, thunks)
    for what in ("apply trace", "init trace"):
        growth = functools.partial(flat, what, (10, 100, 800), 3 if quick else 9)
        yield f"10 to 800 of them: {what}", 1.15, growth
    for case, sides in nnx_models.cases((25, 50, 100, 200)):
        thunks = {
            name: trace(f, tree, nnx_models.TOKENS) for name, (f, tree) in sides.items()
        }
        yield compared(f"{case}: apply trace", 1.1, thunks)
    yield compared("100 shared LayerNorms", 0.35, shared_norms(100))
    yield compared("24 shared blocks", 0.25, shared_blocks(24))
    inside = {
        "transformer of 24 blocks": (shared_inside(models.Transformer(24)), 0.2),
        "ViT of 24 blocks": (shared_inside(models.ViT(24), train=True), 0.2),
        "24 blocks of Haiku": (shared_haiku(24), 0.25),
    }
    for name, (sides, goal) in inside.items():
        yield compared(f"{name}, shared: trace", goal, traced(sides))
        yield compared(f"{name}, shared: lower grad", 0.5, lowered(sides))
    sides = shared_nnx(24)
    thunks = {k: trace(*side, nnx_models.TOKENS) for k, side in sides.items()}
    yield compared("NNX, 24 blocks, shared: trace", 0.35, thunks)
    for name, (module, x) in [
        *nets.items(),
        *((k, (m, models.TOKENS)) for k, (m, *_) in models.KINDS.items()),
    ]:
        added = what_sharing_adds(module, x)
        thunks = {k: trace(*side, x) for k, side in added.items()}
        yield compared(f"{name}: with sharing, to without", 1.03, thunks)
    compiled = functools.partial(few, stacked_blocks(24), 3)
    yield "24 blocks stacked: compile", 0.65, compiled
    yield compared("GroupNorm: eager call", 1.1, eager(), 20 * rounds)
    yield "import", 50, lambda: {"hk_bridge_ms": import_ms()}


def measure(quick: bool, only: str) -> dict[str, Any]:
    """Measures the rows that have `only` in their names, and prints them."""
    results: dict[str, Any] = {}
    for name, goal, row in rows(quick):
        if only not in name:
            continue
        figures = row()
        results[name] = {"goal": goal, **figures}
        text = "".join(f"   {k} {v:8.3f}" for k, v in figures.items() if k != "flax")
        print(f"{name:30} goal {goal:6.2f}{text}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="rows that have this in their name"
    )
    parser.add_argument(
        "--json", metavar="FILE", help="also write the figures to a file"
    )
    args = parser.parse_args()
    versions = {"jax": jax, "jaxlib": jaxlib, "flax": flax}
    print({name: module.__version__ for name, module in versions.items()})
    print(f"device {jax.devices()[0].device_kind}; ratios to flax; flax_ms of one call")
    results = measure(args.quick, args.only)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
