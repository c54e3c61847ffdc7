"""The laws that a program may be held to, with the arguments to draw."""

from collections.abc import Mapping
import dataclasses

BOTH = ("True", "False")


@dataclasses.dataclass(frozen=True)
class Law:
    """What a law takes.

    Attributes:
      options: for each argument the sources of its values.
      methods: whether it runs other methods than `__call__`.
      allows_haiku: whether the module may ask Haiku for things.
      weight: how often it is drawn; one of weight 0 is for scripts alone.
      nnx: whether it is of NNX modules alone.
    """

    options: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    methods: bool = True
    allows_haiku: bool = False
    weight: int = 2
    nnx: bool = False


MUTABLE = ("None",) * 4 + (
    "False",
    "True",
    "['stats']",
    "['params', 'stats', 'batch_stats', 'cache']",
    "nn.DenyList('params')",
)
METHODS = (
    *("None", "'__call__'", "type(CASE.make()).__call__", "'missing'", "3", "Shifted"),
    *("functools.partial(lambda m, x: m(x))", "lambda m, x: (m(x), m.variables)"),
    *("lambda m, x: m.bind(m.variables)(x)", "'is_initializing'", "'train'"),
)
CAPTURES = ("False", "True", "lambda m, name: True", "lambda m, name: m.name is None")
WRONG = ("other_shape", "unknown_name", "unknown_level", "missing_level")
WHERE = ("'params'", "'stats'", "'batch_stats'")
USES = (
    *("plain", "twice", "by_two_names", "in_constructor", "in_method", "in_scope"),
    *("in_forced_scope", "under_renaming", "under_watching", "printed", "in_sequence"),
    *("rematted", "scanned", "conditional", "vmapped", "in_layer_stack", "reentrant"),
    *("reentrant", "caught", "caught", "then_own_leaf", "without_repr"),
    *("differentiated", "under_printing", "in_deep_rnn", "in_lift"),
    "in_transparent_lift",
)
HOOKS = (
    *("none", "none", "looking", "nested", "halving_getter", "halving_state_getter"),
    *("casting_state_getter", "freezing_getter", "halving_setter", "stacking"),
    *("own_leaf", "policy"),
)
LAWS: dict[str, Law] = {
    "same_init": Law(),
    "same_apply": Law({"train": BOTH, "mutable": MUTABLE}, weight=4),
    "same_grad": Law({"train": BOTH}),
    "same_call": Law(
        {
            "method": METHODS,
            "capture": CAPTURES,
            "mutable": (*MUTABLE, "['intermediates']", "['losses', 'intermediates']"),
        },
        methods=False,
        weight=4,
    ),
    "same_again": Law({"change": ("wider", "shifted")}),
    "keys_of_haiku": Law({"train": BOTH}, weight=4),
    "nothing_is_kept": Law(methods=False, weight=1),
    "like_haiku": Law(
        {"use": USES, "hook": HOOKS, "train": BOTH}, methods=False, weight=14
    ),
    "shown": Law({"tool": ("summary", "table", "model_info")}, methods=False),
    "runs_in_haiku": Law({"use": USES, "hook": HOOKS, "train": BOTH}, weight=0),
    "hooked_values": Law(
        {"hook": ("halving_getter", "freezing_getter"), "train": BOTH}
    ),
    "own_leaves": Law(
        {"hook": ("none", "own_leaf")},
        allows_haiku=True,
    ),
    "same_shared": Law(
        {"variants": ("(0, 0, 0)", "(0, 1, 2)", "(0, 1, 0, 1)"), "train": BOTH},
        methods=False,
        allows_haiku=True,
        weight=4,
    ),
    "traced_once": Law({"cls": ("Jitted", "Counted")}, methods=False, weight=1),
    "caches_stay": Law(
        {"cls": ("Jitted", "Counted"), "how": ("init", "observed")}, methods=False
    ),
    "wrapped_cell": Law(
        {"run": ("None", "'step'", "Cell.step"), "train": BOTH}, methods=False
    ),
    "wrapped_class": Law({"cls": ("Cell", "Silent")}, methods=False, weight=1),
    "given_wrong": Law(
        {"wrong": WRONG, "where": ("'params'", "'stats'", "'batch_stats'")},
        methods=False,
    ),
    "given": Law({"part": ("zeros", "numbers")}, methods=False),
    "nnx_init": Law(methods=False, nnx=True),
    "nnx_apply": Law(
        {"train": BOTH, "how": ("'instance'", "'wrapped'", "'twice'", "'shared'")},
        weight=4,
        nnx=True,
    ),
    "nnx_grad": Law({"train": BOTH}, nnx=True),
    "nnx_hooked": Law({"train": BOTH}, methods=False, nnx=True),
}
