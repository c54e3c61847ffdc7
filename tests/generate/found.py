"""For each fault that is known, a small program that the search found to have it.

Written by `python -m tests.generate --pin tests/generate/found.py`, and `ruff format`.
The search does not look at them: they tell when a fault is mended."""

from .spec import Program
from .spec import part
from .spec import program

FOUND: dict[str, Program] = {
    "parameter that is None": program(
        "like_haiku", part("param_of_any_kind", leaf="None")
    ),
    "number in a field": program("like_haiku", part("numpy"), use="shown"),
    "text of an unfinished module": program(
        "like_haiku", part("numpy"), use="under_printing"
    ),
    "read state rewritten": program(
        "like_haiku",
        part("jit", part("layer", layer="nn.BatchNorm(use_running_average=True)")),
        hook="casting_state_getter",
    ),
    "equal values written": program("like_haiku", part("same")),
    "caller's state changed": program(
        "same_apply", part("counter", leaf="{(0, 1): jnp.zeros([4])}")
    ),
    "shared trace asks Haiku": program(
        "same_shared",
        part("haiku_state", what="float(len(hk.experimental.current_name()))"),
    ),
    "shared trace of another": program(
        "same_shared", part("builtin", function="TABLE.get"), variants="(0, 1, 0, 1)"
    ),
    "leaves of others": program("own_leaves", part("haiku_layer")),
    "stale shapes": program("same_again", part("param_by_variable")),
    "method of a cell": program("wrapped_cell", part("global"), run="Cell.step"),
    "shared scope of a grandchild": program(
        "same_apply",
        part(
            "shared_scope_of_field",
            part("counter", leaf="Fields(jnp.zeros([]), jnp.ones([4]))"),
        ),
    ),
    "names in an interceptor": program(
        "like_haiku", part("param"), use="under_renaming"
    ),
    "tables of a holder": program(
        "like_haiku", part("param_by_attribute"), use="in_sequence"
    ),
    "shape that was asked for": program(
        "like_haiku", part("parts", part("global")), hook="stacking"
    ),
    "mapping as a leaf": program(
        "same_init", part("counter", leaf="Fields(jnp.zeros([]), jnp.ones([4]))")
    ),
    "leaf made while reading": program(
        "like_haiku", part("param_of_any_kind"), use="then_own_leaf"
    ),
    "leaf made for a tree": program(
        "like_haiku",
        part("param_of_any_kind", leaf="(None, jnp.ones([4]))"),
        hook="own_leaf",
    ),
    "caught exception": program("like_haiku", part("reader"), use="caught"),
    "initialisers kept": program("nothing_is_kept", part("param_of_any_kind")),
    "jitted anew": program("traced_once", part("builtin")),
    "numbers given": program(
        "given", part("param", init="nn.initializers.ones, ()"), part="numbers"
    ),
    "name of a wrapped class": program("wrapped_class", part("builtin")),
    "wrapped without call": program(
        "wrapped_class", part("looks_around"), cls="Silent"
    ),
}
