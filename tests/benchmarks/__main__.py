"""`python -m tests.benchmarks [--quick] [--json FILE]`: what a bridge costs.

Every figure is a ratio to native Flax, measured side by side in one process: the median
over interleaved rounds of the ratio of the two times in a round. Structure (equations,
compilations, passes) is not measured here but tested, by the laws.
"""

import argparse
from collections.abc import Callable
import functools
import json
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

Thunk = Callable[[], Any]
lift = hk.experimental.flax.lift


def seconds(thunk: Thunk) -> float:
    start = time.perf_counter()
    jax.block_until_ready(thunk())
    return time.perf_counter() - start


def ratios(thunks: dict[str, Thunk], rounds: int) -> dict[str, float]:
    """The median of each one's time as a ratio to that of `flax` in the same round."""
    for thunk in thunks.values():
        seconds(thunk)  # what is made once
    times: dict[str, list[float]] = {name: [] for name in thunks}
    order = list(thunks)
    for i in range(rounds):
        for name in order[i % len(order) :] + order[: i % len(order)]:
            times[name].append(seconds(thunks[name]))
    result = {
        name: statistics.median(
            a / b for a, b in zip(times[name], times["flax"], strict=True)
        )
        for name in thunks
    }
    return {**result, "flax_ms": 1e3 * statistics.median(times["flax"])}


def trace(f: Callable[..., Any], *args: Any) -> Thunk:
    """Traces `f` anew each time it is called."""

    def thunk() -> None:
        jax.make_jaxpr(lambda *args: f(*args))(*args)

    return thunk


def ours(module: nn.Module) -> Callable[..., Any]:
    return lambda x: hk_bridge.FlaxModule(module, name="net")(x)


def theirs(module: nn.Module) -> Callable[..., Any]:
    return lambda x: lift(module, name="net")(x)


def apply_and_init(module: nn.Module, x: Any) -> dict[str, dict[str, Thunk]]:
    """The thunks that trace `apply` and `init`, and that run `init` eagerly."""
    key = models.KEY
    variables = module.init(key, x)
    mutable = [c for c in variables if c != "params"]
    table: dict[str, dict[str, Thunk]] = {"apply trace": {}, "init trace": {}}
    table["init eager"] = {"flax": lambda: module.init(key, x)}
    table["apply trace"]["flax"] = trace(
        lambda v, x: module.apply(v, x, mutable=mutable), variables, x
    )
    table["init trace"]["flax"] = trace(module.init, key, x)
    for name, make in {"hk_bridge": ours, "lift": theirs}.items():
        f = hk.transform_with_state(make(module))
        params, state = f.init(key, x)
        table["apply trace"][name] = trace(
            functools.partial(lambda f, p, s, x: f.apply(p, s, None, x), f),
            params,
            state,
            x,
        )
        table["init trace"][name] = trace(f.init, key, x)
        table["init eager"][name] = functools.partial(f.init, key, x)
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

    table["apply trace"]["shared"] = shared(n, lambda: hk_bridge.nn.LayerNorm(), x)
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


def blocks(n: int) -> dict[str, Thunk]:
    """A transformer of `n` bridged blocks under `share_traces`."""
    module, x = models.Transformer(n), models.TOKENS
    variables = module.init(models.KEY, x)
    return {
        "flax": trace(module.apply, variables, x),
        "shared": shared(n, lambda: hk_bridge.FlaxModule(models.Block()), x),
    }


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


def step(module: nn.Module, x: Any) -> dict[str, Thunk]:
    """A jitted forward and backward pass: at run time."""
    variables = module.init(models.KEY, x)
    f = hk.transform_with_state(ours(module))
    params, state = f.init(models.KEY, x)
    rest = {c: v for c, v in variables.items() if c != "params"}

    def flax_loss(p: Any) -> Any:
        y, _ = module.apply({"params": p, **rest}, x, mutable=list(rest))
        return (y**2).mean()

    def our_loss(p: Any) -> Any:
        return (f.apply(p, state, None, x)[0] ** 2).mean()

    native, bridged = jax.jit(jax.grad(flax_loss)), jax.jit(jax.grad(our_loss))
    return {
        "flax": lambda: native(variables["params"]),
        "hk_bridge": lambda: bridged(params),
    }


def import_ms() -> float:
    """What importing hk_bridge adds to importing haiku and flax, in milliseconds."""
    code = (
        "import time, haiku, flax, flax.linen; t = time.perf_counter(); "
        "import hk_bridge; print(1e3 * (time.perf_counter() - t))"
    )
    runs = [subprocess.check_output([sys.executable, "-c", code]) for _ in range(5)]
    return statistics.median(map(float, runs))


def measure(quick: bool) -> dict[str, Any]:
    rounds = 7 if quick else 31
    results: dict[str, Any] = {}

    def add(name: str, thunks: dict[str, Thunk], rounds: int) -> None:
        results[name] = ratios(thunks, rounds)
        row = "".join(
            f"{k} {v:9.3f}   " for k, v in results[name].items() if k != "flax"
        )
        print(f"{name:30} {row}", flush=True)

    nets = {
        "convnet": (models.ConvNet(), models.IMAGES),
        "transformer": (models.Transformer(), models.TOKENS),
    }
    for net, (module, x) in nets.items():
        for what, thunks in apply_and_init(module, x).items():
            add(f"{net}: {what}", thunks, rounds)
        add(f"{net}: step at run time", step(module, x), 3 * rounds)
    for n in (10, 100) if quick else (10, 100, 800):
        for what, thunks in chain(n).items():
            add(f"{n} LayerNorms: {what}", thunks, max(3, rounds * 10 // n))
    add("24 shared blocks: apply trace", blocks(24), rounds)
    add("GroupNorm: eager call", eager(), 20 * rounds)
    results["import"] = {"hk_bridge_ms": import_ms()}
    print(f"{'import':30} hk_bridge_ms {results['import']['hk_bridge_ms']:.1f}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="under two minutes")
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
