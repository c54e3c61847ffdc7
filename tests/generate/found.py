"""For each fault that is known, a small program that the search found to have it.

Written by `python -m tests.generate --pin tests/generate/found.py`, and `ruff format`.
The search does not look at them: they tell when a fault is mended."""

from .spec import Program
from .spec import part
from .spec import program

FOUND: dict[str, Program] = {
    "number in a field": program("like_haiku", part("numpy"), use="shown"),
    "text of an unfinished module": program(
        "like_haiku", part("param_of_any_kind"), use="under_watching"
    ),
    "read state rewritten": program(
        "like_haiku",
        part("while", part("reader", leaf="(jnp.zeros([]), jnp.ones([4]))")),
        hook="casting_state_getter",
    ),
    "equal values written": program("like_haiku", part("same")),
    "caller's state changed": program(
        "same_apply", part("counter", leaf="{1.5: jnp.zeros([]), 2.5: jnp.ones([4])}")
    ),
    "leaves of others": program(
        "own_leaves", part("param_of_any_kind"), hook="own_leaf"
    ),
    "stale shapes": program("same_again", part("param_by_attribute"), setup=True),
    "method of a cell": program("wrapped_cell", part("noise_if_any"), run="'step'"),
    "names in an interceptor": program(
        "like_haiku", part("counter"), use="under_renaming"
    ),
    "tables of a holder": program(
        "like_haiku", part("param_by_attribute"), use="in_sequence"
    ),
    "shape that was asked for": program("like_haiku", part("layer"), hook="stacking"),
    "leaf made while reading": program(
        "like_haiku", part("param"), use="then_own_leaf"
    ),
    "leaf made for a tree": program(
        "like_haiku",
        part("param_of_any_kind", leaf="(None, jnp.ones([4]))"),
        hook="own_leaf",
    ),
    "caught exception": program("like_haiku", part("memory"), use="caught"),
    "initialisers kept": program("nothing_is_kept", part("builtin")),
    "numbers given": program(
        "given",
        part("counter", leaf="{'a': jnp.zeros([4]), 'b': {'c': jnp.ones([])}}"),
        part="numbers",
    ),
    "name of a wrapped class": program("wrapped_class", part("builtin")),
    "wrapped without call": program("wrapped_class", part("counter"), cls="Silent"),
}
