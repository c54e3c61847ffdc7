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
    """

    options: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    methods: bool = True
    allows_haiku: bool = False


MUTABLE = ("None",) * 4 + (
    "False",
    "True",
    "['stats']",
    "['params', 'stats', 'batch_stats', 'cache']",
    "nn.DenyList('params')",
)
LAWS: dict[str, Law] = {
    "same_init": Law(),
    "same_apply": Law({"train": BOTH, "mutable": MUTABLE}),
    "same_again": Law({"change": ("wider", "shifted")}),
    "keys_of_haiku": Law({"train": BOTH}),
    "nothing_is_kept": Law(methods=False),
}
