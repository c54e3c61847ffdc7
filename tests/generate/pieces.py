"""Features of a module, each a few lines of Python with places for choices.

In a text `$i` is the number of the piece, `$v` what it made, `$B` the class of the
block inside it, `make_$B(self.train)` that block, and any other `$name` a choice. Each
text takes `x`, of shape [2, 4] and float32, and leaves such an `x`.
"""

from collections.abc import Mapping
import dataclasses


@dataclasses.dataclass(frozen=True)
class Piece:
    """A feature.

    Attributes:
      body: lines of the method.
      make: what is made in `setup`, or before `body` in a compact method.
      field: what a field of the module is built with; it may look at `variant`.
      choices: the texts that a name in the others may stand for.
      inside: whether it holds a block.
      top: lines after the class of that block.
      sown: the collections that it sows into; these may be choices.
      asks_haiku: whether it needs a Haiku transform around it.
      nnx: whether it is of an NNX module.
    """

    body: str
    make: str = ""
    field: str = ""
    choices: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    inside: bool = False
    top: str = ""
    sown: tuple[str, ...] = ()
    asks_haiku: bool = False
    nnx: bool = False


LEAVES = (
    "jnp.full([4], 0.5)",
    "jnp.ones([4], jnp.bfloat16)",
    "jnp.arange(4, dtype=jnp.int8)",
    "jnp.zeros([2], bool)",
    "jnp.zeros([])",
    "(jnp.zeros([]), jnp.ones([4]))",
    "Two(jnp.zeros([]), jnp.ones([4]))",
    "Struct(jnp.zeros([]), jnp.ones([4]))",
    "Data(jnp.zeros([]), jnp.ones([4]))",
    "Chex(left=jnp.zeros([]), right=jnp.ones([4]))",
    "{(0, 1): jnp.zeros([4])}",
    "{1.5: jnp.zeros([]), 2.5: jnp.ones([4])}",
    "{'a': jnp.zeros([4]), 'b': {'c': jnp.ones([])}}",
    "{0: jnp.zeros([]), 1: jnp.ones([4])}",
    "jax.random.key(7)",
    "None",
    "(None, jnp.ones([4]))",
    "{}",
    "nn.Partitioned(jnp.ones([4]), ('a',))",
)
INITIALISERS = (
    "nn.initializers.normal(), (4,)",
    "nn.initializers.ones, ()",
    "nn.initializers.zeros, (SETTINGS.width,), jnp.bfloat16",
    "FILLED",
    "lambda key: jnp.ones([SETTINGS.width])",
    "lambda key, s=SETTINGS: jax.random.normal(key, [s.width])",
    "lambda key: X[0]",
    "lambda key: jax.random.normal(key, x.shape)",
    "nn.with_partitioning(nn.initializers.ones, ('a',)), (4,)",
)
KEPT = ("stats", "cache", "batch_stats")
FUNCTIONS = (
    "jnp.tanh",
    "nn.relu",
    "lambda x: x + variant",
    "functools.partial(jnp.add, 1.0 + variant)",
    "Shifted(1.0 + variant)",
    "Shifted(1.0 + variant).method",
    "SHIFTED",
    "SHIFTED.method",
    "SHIFTED.decorated",
    "jax.jit(lambda x: x * (1.0 + variant))",
    "jax.checkpoint(Shifted(1.0 + variant).method)",
)
CHANGES = ("bump($v.value)", "$v.value", "jax.tree.map(lambda a: a, $v.value)")

PIECES: dict[str, Piece] = {
    # Leaves of its own.
    "param": Piece(
        make="self.param('p$i', $init)",
        body="x = x + total($v)",
        choices={"init": INITIALISERS},
    ),
    "param_of_any_kind": Piece(
        make="self.param('p$i', lambda key: $leaf)",
        body="x = x + total($v)",
        choices={"leaf": LEAVES},
    ),
    "param_by_attribute": Piece(
        make="jnp.ones([SETTINGS.width])",
        body="x = x + total(self.param('p$i', lambda key: jnp.zeros($v.shape)))",
    ),
    "param_by_variable": Piece(
        make="self.variable('$col', 'r$i', lambda: jnp.ones([SETTINGS.width]))",
        body="x = x + total(self.param('p$i', lambda key: jnp.zeros($shape)))",
        choices={
            "col": KEPT,
            "shape": ("SETTINGS.width", "$v.value.shape", "X[0].shape"),
        },
    ),
    "reader": Piece(
        make="self.variable('$col', 'r$i', lambda: $leaf)",
        body="x = x + total($v.value)",
        choices={"col": KEPT, "leaf": LEAVES},
    ),
    "counter": Piece(
        make="self.variable('$col', 'c$i', lambda: $leaf)",
        body="if $when:\n    $v.value = bump($v.value)\nx = x + total($v.value)",
        choices={
            "col": KEPT,
            "leaf": LEAVES,
            "when": ("not self.is_initializing()", "self.train", "True"),
        },
    ),
    "same": Piece(
        make="self.variable('$col', 'same$i', lambda: $leaf)",
        body="$v.value = $v.value\nx = x + total($v.value)",
        choices={"col": KEPT, "leaf": LEAVES},
    ),
    "changed_in_place": Piece(
        make="self.variable('$col', 'c$i', lambda: $leaf)",
        body=(
            "value$i = self.get_variable('$col', 'c$i')\n"
            "if not self.is_initializing():\n"
            "    self.put_variable('$col', 'c$i', bump(value$i))\n"
            "x = x + total(value$i)"
        ),
        choices={"col": KEPT, "leaf": LEAVES},
    ),
    "memory": Piece(
        body=(
            "if not self.has_variable('$col', 'm$i'):\n"
            "    self.put_variable('$col', 'm$i', jnp.zeros_like(x))\n"
            "last$i = self.get_variable('$col', 'm$i')\n"
            "self.put_variable('$col', 'm$i', x)\n"
            "x = x + last$i"
        ),
        choices={"col": KEPT},
    ),
    # Values for the outside.
    "sow": Piece(
        body="self.sow('$to', 'h$i', x$how)",
        choices={
            "to": ("intermediates", "losses", "stats"),
            "how": (
                "",
                ".sum(), jnp.add, lambda: jnp.zeros([])",
                ", lambda _, new: new, lambda: None",
            ),
        },
        sown=("$to",),
    ),
    "perturb": Piece(body="x = self.perturb('h$i', x)", sown=("perturbations",)),
    # Looking around.
    "looks_at_variables": Piece(
        body="see($what)\nx = x + total(dict(self.variables).get('params'))",
        choices={
            "what": (
                "paths(dict(self.variables))",
                "sorted(self.variables)",
                "paths(dict(self.variables).get('params'))",
                "{k: type(v).__name__ for k, v in "
                "dict(self.variables.get('params', {})).items()}",
            )
        },
    ),
    "looks_around": Piece(
        body="see('$i', $what)",
        choices={
            "what": (
                "self.is_initializing()",
                "self.name",
                "self.path",
                "self.has_rng('dropout')",
                "self.is_mutable_collection('stats')",
                "self.is_mutable_collection('params')",
                "self.has_variable('stats', 'c0')",
                "type(self).__name__",
            )
        },
    ),
    "noise_if_any": Piece(
        body=(
            "see('$stream', self.has_rng('$stream'))\n"
            "if self.has_rng('$stream'):\n"
            "    x = x + jax.random.normal(self.make_rng('$stream'), x.shape)"
        ),
        choices={"stream": ("noise", "dropout")},
    ),
    # What a field holds.
    "function": Piece(
        field="$function", body="x = self.f$i(x)", choices={"function": FUNCTIONS}
    ),
    "builtin": Piece(
        field="$function",
        body="x = x + self.f$i('a')",
        choices={
            "function": (
                "{'a': 1.0 + variant}.get",
                "TABLE.get",
            )
        },
    ),
    "numpy": Piece(
        field="np.arange(4.0, dtype=np.float32) + np.float32(variant)",
        body="x = x + self.f$i[None]",
    ),
    "settings": Piece(
        field="$settings",
        body="x = x + self.f$i.shift",
        choices={
            "settings": ("Settings(4, 1.0 + variant)", "label('relu', 1.0 + variant)")
        },
    ),
    "global": Piece(body="x = x * SETTINGS.shift"),
    "param_by_field": Piece(
        field="$filled",
        make="self.param('p$i', self.f$i)",
        body="x = x + total($v)",
        choices={"filled": ("FILLED", "Filled(SETTINGS)", "FILLED.method")},
    ),
    # Asking Haiku.
    "haiku_layer": Piece(
        field="lambda x: hk.Linear(4$name)(x)",
        body="x = self.f$i(x)",
        choices={"name": ("", ", name='inner'")},
        asks_haiku=True,
    ),
    "haiku_state": Piece(
        body="x = x + $what",
        choices={
            "what": (
                "total(hk.get_params())",
                "total(hk.get_current_state())",
                "float(len(hk.experimental.current_name()))",
                "float(hk.running_init())",
                "jax.random.normal(hk.next_rng_key(), x.shape)",
                "float(len(hk.get_params() or {}))",
            )
        },
        asks_haiku=True,
    ),
    # Parts.
    "part": Piece(make="make_$B(self.train)", body="x = $v(x)", inside=True),
    "part_twice": Piece(make="make_$B(self.train)", body="x = $v($v(x))", inside=True),
    "adopted": Piece(
        field="make_$B(train, variant)", body="x = self.f$i(x)", inside=True
    ),
    "parts": Piece(
        make="$group",
        body="for part in $v:\n    x = part(x)",
        choices={"group": ("[make_$B(self.train), nn.Dense(4)]",)},
        inside=True,
    ),
    "parts_by_name": Piece(
        make="{'a': make_$B(self.train), 'b': nn.Dense(4)}",
        body="for part in $v.values():\n    x = part(x)",
        inside=True,
    ),
    "shared_scope_of_field": Piece(
        field="make_$B(train, variant)",
        body="nn.share_scope(self, self.f$i)\nx = self.f$i(x)",
        inside=True,
    ),
    "shared_scope": Piece(
        make="make_$B(self.train)",
        body="nn.share_scope(self, $v)\nx = $v(x)",
        inside=True,
    ),
}
