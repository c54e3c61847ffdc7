"""Flax's lifted transforms around a block, as pieces."""

from .pieces import Piece

PART = "make_$B(self.train)"
RUN = "lambda m, x: m(x)"
KEYS = "split_rngs={'params': True, 'dropout': True, 'noise': True}"
SOWN = "'intermediates': 0, 'losses': 0, 'perturbations': 0"
BRANCHES = f"part$i = {PART}\nx = part$i(x) if self.is_initializing() else "

LIFTED: dict[str, Piece] = {
    "remat": Piece(
        body="x = $how(x)",
        choices={
            "how": (
                "make_$B(self.train, cls=nn.remat($B))",
                "make_$B(self.train, cls=Remat$B)",
                f"(lambda x: nn.remat({RUN})({PART}, x))",
            )
        },
        inside=True,
        top="Remat$B = nn.remat($B)",
    ),
    "jit": Piece(
        body="x = $how(x)",
        choices={
            "how": (
                "make_$B(self.train, cls=Jitted$B)",
                "make_$B(self.train, cls=nn.jit($B))",
                f"(lambda x: nn.jit({RUN})({PART}, x))",
            )
        },
        inside=True,
        top="Jitted$B = nn.jit($B)",
    ),
    "scan": Piece(
        body=(
            "x, _ = nn.scan(\n"
            "    lambda m, x, _: (m(x), None),\n"
            f"    variable_axes={{'params': 0, {SOWN}}},\n"
            "    variable_carry=$carry,\n"
            "    split_rngs=$split,\n"
            "    length=2,\n"
            f")({PART}, x, None)"
        ),
        choices={
            "carry": ("('stats', 'batch_stats', 'cache')",),
            "split": ("{'params': True, 'dropout': True}", KEYS.partition("=")[2]),
        },
        inside=True,
    ),
    "scan_stacked": Piece(
        body=(
            "x, _ = nn.scan(\n"
            "    lambda m, x, _: (m(x), None),\n"
            "    variable_axes={True: 0},\n"
            f"    {KEYS},\n"
            "    length=2,\n"
            f")({PART}, x, None)"
        ),
        inside=True,
    ),
    "vmap": Piece(
        body=(
            "x = nn.vmap(\n"
            f"    {RUN},\n"
            "    in_axes=None,\n"
            "    axis_size=2,\n"
            f"    variable_axes={{'params': $axis, 'stats': 0, 'batch_stats': 0, "
            f"'cache': 0, {SOWN}}},\n"
            "    split_rngs={'params': $split, 'dropout': True, 'noise': True},\n"
            f")({PART}, x).sum(0)"
        ),
        choices={"axis": ("0", "None", "-1"), "split": ("True", "False")},
        inside=True,
    ),
    "cond": Piece(
        body=(
            f"{BRANCHES}nn.cond(\n"
            f"    x.sum() > 0.0, {RUN}, lambda m, x: x, part$i, x\n)"
        ),
        inside=True,
    ),
    "switch": Piece(
        body=(
            f"{BRANCHES}nn.switch(\n"
            f"    jnp.int32(0), [{RUN}, lambda m, x: x], part$i, x\n)"
        ),
        inside=True,
    ),
    "while": Piece(
        body=(
            f"{BRANCHES}nn.while_loop(\n"
            "    lambda m, c: c[1] < 2,\n"
            "    lambda m, c: (m(c[0]), c[1] + 1),\n"
            "    part$i,\n"
            "    (x, 0),\n"
            "    carry_variables=('stats', 'batch_stats', 'cache'),\n"
            ")[0]"
        ),
        inside=True,
    ),
    "custom_vjp": Piece(
        body=(
            "x = nn.custom_vjp(\n"
            f"    {RUN},\n"
            f"    forward_fn=lambda m, x: nn.vjp({RUN}, m, x),\n"
            "    backward_fn=lambda vjp, g: vjp(g),\n"
            f")({PART}, x)"
        ),
        inside=True,
    ),
    "map_variables": Piece(
        body=(
            "x = nn.map_variables(\n"
            f"    {RUN},\n"
            "    '$col',\n"
            "    trans_in_fn=lambda v: jax.tree.map(lambda a: a * 1, v),\n"
            "    trans_out_fn=lambda v: v,\n"
            "    init=True,\n"
            "    mutable=$mutable,\n"
            f")({PART}, x)"
        ),
        choices={"col": ("params", "stats"), "mutable": ("True", "False")},
        inside=True,
    ),
    "add_metadata_axis": Piece(
        body=(
            "lifted$i = nn.add_metadata_axis(\n"
            "    $B,\n"
            "    variable_axes={'params': 0},\n"
            "    metadata_params={nn.PARTITION_NAME: 'layers'},\n"
            ")\n"
            "x = make_$B(self.train, cls=lifted$i)(x)"
        ),
        inside=True,
    ),
}
