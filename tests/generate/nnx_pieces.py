"""Features of an NNX module, and the piece that holds one in a linen module.

What `make` gives is an attribute of the module; `rngs` and `train` are at hand there.
"""

import dataclasses

from .pieces import LEAVES
from .pieces import Piece

LAYERS = (
    "nnx.Linear(4, 4, rngs=rngs)",
    "nnx.Linear(4, 4, param_dtype=jnp.bfloat16, dtype=jnp.float32, rngs=rngs)",
    "nnx.LayerNorm(4, rngs=rngs)",
    "nnx.GroupNorm(4, num_groups=2, rngs=rngs)",
    "nnx.BatchNorm(4, use_running_average=not train, rngs=rngs)",
    "nnx.Dropout(0.5, deterministic=not train, rngs=rngs)",
    "nnx.Dropout(0.5, deterministic=not train, rng_collection='noise', rngs=rngs)",
    "nnx.LoRA(4, 2, 4, rngs=rngs)",
    "nnx.Sequential(nnx.Linear(4, 3, rngs=rngs), jnp.tanh, "
    "nnx.Linear(3, 4, rngs=rngs))",
    "nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)",
)
VALUES = (
    "jax.random.normal(rngs.params(), [4])",
    *(leaf for leaf in LEAVES if "Partitioned" not in leaf),
)
PARAMS = ("nnx.Param($leaf)", "nnx.Param($leaf, note='a')")
KINDS = ("nnx.BatchStat", "nnx.Cache", "nnx.Variable", "Count")

NNX: dict[str, Piece] = {
    "nnx_layer": Piece(
        make="$layer",
        body="x = $v(x).reshape(2, 4).astype(jnp.float32)",
        choices={"layer": LAYERS},
    ),
    "nnx_param": Piece(
        make="$made",
        body="x = x + total($v.get_value())",
        choices={"made": PARAMS, "leaf": VALUES},
    ),
    "nnx_reader": Piece(
        make="$variable($leaf)",
        body="x = x + total($v.get_value())",
        choices={"variable": KINDS, "leaf": VALUES},
    ),
    "nnx_counter": Piece(
        make="$variable($leaf)",
        body="$when$v.set_value(bump($v.get_value()))\nx = x + total($v.get_value())",
        choices={
            "variable": KINDS,
            "leaf": VALUES,
            "when": ("", "if self.train: "),
        },
    ),
    "nnx_noise": Piece(
        make="rngs",
        body="x = x + jax.random.normal($v.$stream(), x.shape)",
        choices={"stream": ("noise", "dropout")},
    ),
    "nnx_sow": Piece(
        body="self.sow(nnx.Intermediate, 'h$i', x)", sown=("intermediates",)
    ),
    "nnx_part": Piece(make="$B(train, rngs=rngs)", body="x = $v(x)", inside=True),
    "nnx_part_twice": Piece(
        make="$B(train, rngs=rngs)", body="x = $v($v(x))", inside=True
    ),
    "nnx_parts": Piece(
        make="$group",
        body="for part in $v:\n    x = part(x)",
        choices={
            "group": ("nnx.List([$B(train, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])",)
        },
        inside=True,
    ),
    "nnx_shared": Piece(
        make="$B(train, rngs=rngs)\nself.w$i = $v",
        body="x = $v(self.w$i(x))",
        inside=True,
    ),
    "nnx_lifted": Piece(
        make="$B(train, rngs=rngs)",
        body="x = $lift(lambda m, x: m(x))($v, x)",
        choices={"lift": ("nnx.remat", "nnx.jit")},
        inside=True,
    ),
}
NNX = {name: dataclasses.replace(piece, nnx=True) for name, piece in NNX.items()}

NNX_INSIDE = Piece(
    make="nnx.bridge.to_linen($B, self.train)", body="x = $v(x)", inside=True
)
