"""For each fault that is known, a small program that the search found to have it.

Written by `python -m tests.generate --pin tests/generate/found.py`, and `ruff format`.
The search does not look at them: they tell when a fault is mended."""

from .spec import Program
from .spec import part
from .spec import program

FOUND: dict[str, Program] = {
    "streams inside lifted code": program(
        "like_haiku", part("jit", part("noise_if_any"))
    ),
    "keys of hk.vmap": program(
        "like_haiku",
        part("jit", part("param")),
        use="vmapped",
        around="jax.debug_key_reuse(True)",
    ),
    "shape inside lifted code": program(
        "like_haiku", part("switch", part("param")), hook="stacking"
    ),
    "Haiku asked in jitted code": program(
        "same_shared",
        part("parts_by_name", part("jit", part("haiku_state"))),
    ),
    "leaf of a getter to come": program(
        "like_haiku", part("scan", part("param")), use="then_own_leaf"
    ),
    "shape of a variable to come": program(
        "like_haiku", part("looks_at_variables"), part("layer"), hook="stacking"
    ),
    "box of a variable to come": program(
        "same_apply",
        part("looks_at_variables", what="paths(dict(self.variables))"),
        part(
            "layer",
            layer="nn.Dense(4, kernel_init=nn.with_partitioning("
            "nn.initializers.ones, (None, 'a')))",
        ),
    ),
    "names in an interceptor": program(
        "like_haiku", part("param"), use="under_renaming"
    ),
    "hooks of to_linen": program(
        "like_haiku",
        part(
            "nnx_layer",
            layer="nnx.BatchNorm(4, use_running_average=not train, rngs=rngs)",
        ),
        hook="policy",
        train="False",
    ),
    "to_linen takes Mappings apart": program(
        "keys_of_haiku",
        part("nnx_reader", leaf="Chex(left=jnp.zeros([]), right=jnp.ones([4]))"),
        part("nnx_parts", part("nnx_noise")),
    ),
}

# Found once, and mended: they hold now.
MENDED: dict[str, Program] = {
    "what jitted code in a scan reads": program(
        "like_haiku",
        part(
            "scan_stacked",
            part(
                "jit",
                part("reader", col="stats"),
                how="make_$B(self.train, cls=Jitted$B)",
            ),
        ),
        hook="nested",
    ),
    "streams of NNX inside lifted code": program(
        "keys_of_haiku", part("remat", part("nnx", part("nnx_noise")))
    ),
    "streams of NNX in a branch": program(
        "keys_of_haiku", part("cond", part("nnx", part("nnx_noise")))
    ),
    "module kept by a scope": program(
        "nothing_is_kept", part("custom_vjp", part("layer"))
    ),
    "streams of NNX code": program("keys_of_haiku", part("nnx_noise")),
    "boxes in a loop": program(
        "own_leaves",
        part("numpy"),
        part(
            "while",
            part(
                "layer",
                layer="nn.Dense(4, kernel_init=nn.with_partitioning("
                "nn.initializers.ones, (None, 'a')))",
            ),
        ),
    ),
    "names never made": program("given_wrong", part("layer"), wrong="unknown_name"),
    "shared scope of a grandchild": program(
        "same_apply",
        part(
            "shared_scope_of_field",
            part("counter", leaf="Chex(left=jnp.zeros([]), right=jnp.ones([4]))"),
        ),
    ),
    "mapping as a leaf": program(
        "same_init",
        part("param_of_any_kind", leaf="Chex(left=jnp.zeros([]), right=jnp.ones([4]))"),
    ),
    "equal values written": program("like_haiku", part("same")),
    "equal values written below": program(
        "like_haiku",
        part("same", leaf="{'a': jnp.zeros([4]), 'b': {'c': jnp.ones([])}}"),
        hook="halving_state_getter",
    ),
    "parameter that is None": program(
        "like_haiku", part("param_of_any_kind", leaf="None")
    ),
    "read state rewritten": program(
        "like_haiku",
        part("jit", part("counter", when="self.train")),
        hook="halving_setter",
        train="False",
    ),
    "caller's state changed": program(
        "same_apply", part("changed_in_place", leaf="{(0, 1): jnp.zeros([4])}")
    ),
    "leaves of others": program("own_leaves", part("haiku_layer")),
    "re-entrant calls": program("like_haiku", part("counter"), use="reentrant"),
    "streams inside lifted code": program(
        "keys_of_haiku", part("add_metadata_axis", part("noise_if_any"))
    ),
    "shape that was asked for": program("like_haiku", part("layer"), hook="stacking"),
    "leaf made while reading": program(
        "like_haiku", part("layer"), use="then_own_leaf"
    ),
    "leaf made for a tree": program(
        "like_haiku",
        part("param_of_any_kind", leaf="(None, jnp.ones([4]))"),
        hook="own_leaf",
    ),
    "caught exception": program("like_haiku", part("counter"), use="caught"),
    "key used up by a law": program(
        "shown",
        part("param", init="nn.initializers.normal(), (4,)"),
        part("jit", part("looks_around")),
        tool="model_info",
        around="jax.debug_key_reuse(True)",
    ),
    "another type in a loop": program(
        "like_haiku",
        part("noise_if_any"),
        use="in_layer_stack",
        around="jax.enable_x64()",
    ),
    "state lifted inside a map": program(
        "like_haiku",
        part(
            "add_metadata_axis",
            part("remat", part("reader"), how="make_$B(self.train, cls=nn.remat($B))"),
        ),
        hook="looking",
    ),
    "modules kept while sharing": program(
        "same_shared", part("vmap", part("layer")), around="jax.checking_leaks()"
    ),
    "shared scope of another root": program(
        "hooked_values",
        part(
            "scan",
            part("shared_scope_of_field", part("looks_at_variables")),
            part("layer"),
        ),
        hook="halving_getter",
    ),
    "another type in the second call": program(
        "like_haiku",
        part("switch", part("layer")),
        part("param_by_variable"),
        use="twice",
        around="jax.enable_x64()",
    ),
    "loops that are unrolled": program(
        "like_haiku",
        part("scan_stacked", part("reader", col="batch_stats")),
        hook="looking",
        around="jax.disable_jit()",
    ),
    "state put at init under a getter": program(
        "like_haiku",
        part("vmap", part("memory"), split="False"),
        hook="casting_state_getter",
        use="in_layer_stack",
    ),
    "state of another type in a branch": program(
        "like_haiku",
        part("cond", part("memory", col="cache")),
        hook="casting_state_getter",
    ),
    "given container written": program(
        "given",
        part("jit", part("same", leaf="{(0, 1): jnp.zeros([4])}")),
        around="jax.checking_leaks()",
    ),
    "read below a branch": program(
        "same_apply", part("cond", part("remat", part("reader")))
    ),
    "read below a loop": program(
        "same_apply", part("while", part("jit", part("reader")))
    ),
    "key under a policy": program(
        "like_haiku",
        part("param_of_any_kind", leaf="jax.random.key(7)"),
        hook="policy",
    ),
    "jitted anew": program("traced_once", part("builtin")),
    "numbers given": program(
        "given", part("param", init="nn.initializers.ones, ()"), part="numbers"
    ),
    "boxes": program(
        "same_apply",
        part("param", init="nn.with_partitioning(nn.initializers.ones, ('a',)), (4,)"),
        part(
            "looks_at_variables",
            what="{k: type(v).__name__ for k, v in "
            "dict(self.variables.get('params', {})).items()}",
        ),
    ),
}
