"""`python -m tests.rewrites.large`: seconds and memory for a hundred layers."""

import resource
import sys
import time

import flax.linen as nn
import haiku as hk
import jax

from hk_bridge import migrate

from .others import Block
from .others import FlaxBlock
from .others import norm
from .pairs import Pair

LAYERS, SIZE = 100, 128


class Deep(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(LAYERS):
            x = FlaxBlock(4, True, name=f"block_{i}")(x)
        return nn.LayerNorm(name="norm")(x)


def deep(x):
    for i in range(LAYERS):
        x = Block(4, True, "", name=f"block_{i}")(x)
    return norm(name="norm")(x)


def main():
    x = jax.random.normal(jax.random.key(0), (1, 8, SIZE))
    pair = Pair("deep", lambda wrong: Deep(), lambda wrong: deep, (x,), {})
    variables = pair.variables()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(variables)) / 1e6
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    found = migrate.match(Deep(), variables, hk.transform(deep), x)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    leaves = len({row.haiku for row in found.table().rows})
    print(f"{leaves} leaves, {size:.0f} MB, found {leaves - len(found.missing)}")
    print(f"proven: {found.ok}; {time.perf_counter() - start:.0f} s")
    print(f"peak {peak:.0f} MB, {(peak - before) / size:.1f} times the weights on top")
    return int(not found.ok)


if __name__ == "__main__":
    sys.exit(main())
