"""Layers of Flax in odd configurations, as one piece."""

from .pieces import Piece

LAYERS = (
    "nn.Dense(4)",
    "nn.Dense(4, use_bias=False, param_dtype=jnp.bfloat16, dtype=jnp.float32)",
    "nn.Dense(4, kernel_init=nn.with_partitioning(nn.initializers.ones, (None, 'a')))",
    "nn.Dense(4, bias_init=lambda key, shape, dtype: X[0].astype(dtype))",
    "nn.DenseGeneral((2, 2), axis=(-1,))",
    "nn.Einsum((4, 4), 'bi,ij->bj')",
    "nn.LayerNorm(use_bias=False)",
    "nn.RMSNorm(param_dtype=jnp.float16)",
    "nn.GroupNorm(num_groups=2)",
    "nn.BatchNorm(use_running_average=not self.train)",
    "nn.BatchNorm(use_running_average=True)",
    "nn.BatchNorm(use_running_average=not self.train, use_scale=False, momentum=0.5)",
    "nn.Dropout(0.5, deterministic=not self.train)",
    "nn.Dropout(0.5, rng_collection='noise', deterministic=not self.train)",
    "nn.Dropout(0.5, deterministic=not self.has_rng('dropout'))",
    "nn.PReLU()",
    "nn.Sequential([nn.Dense(3), nn.tanh, nn.Dense(4)])",
    "nn.WeightNorm(nn.Dense(4))",
    "nn.MultiHeadDotProductAttention(num_heads=2, deterministic=True)",
    "nn.RNN(nn.GRUCell(4))",
    "nn.Conv(4, (2,), padding='SAME', feature_group_count=2)",
    "nnx.bridge.to_linen(nnx.Linear, 4, 4)",
    "nnx.bridge.to_linen(nnx.BatchNorm, 4)",
    "nnx.bridge.to_linen(nnx.Dropout, 0.5)",
    "nn.remat(nn.Dense)(4)",
    "nn.remat(nn.BatchNorm)(use_running_average=not self.train)",
    "nn.vmap(nn.Dense, variable_axes={'params': 0}, split_rngs={'params': True})(4)",
)

LAYER = Piece(
    make="$layer",
    body="x = $v(x).reshape(2, 4).astype(jnp.float32)",
    choices={"layer": LAYERS},
)
