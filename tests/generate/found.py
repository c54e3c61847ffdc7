"""For each fault that is known, a small program that the search found to have it.

Written by `python -m tests.generate --pin tests/generate/found.py`, and `ruff format`.
The search does not look at them: they tell when a fault is mended."""

from .spec import Program

FOUND: dict[str, Program] = {
    "number in a field": Program(
        block=Block(parts=(Part(kind="numpy", choices=(), inside=None),), setup=False),
        law="like_haiku",
        options=(("hook", "none"), ("train", "True"), ("use", "shown")),
        method="None",
        around="",
    ),
    "text of an unfinished module": Program(
        block=Block(
            parts=(
                Part(
                    kind="param_of_any_kind",
                    choices=(("leaf", "jnp.full([4], 0.5)"),),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="like_haiku",
        options=(("hook", "none"), ("train", "True"), ("use", "under_watching")),
        method="None",
        around="",
    ),
    "read state rewritten": Program(
        block=Block(
            parts=(
                Part(
                    kind="while",
                    choices=(),
                    inside=Block(
                        parts=(
                            Part(
                                kind="reader",
                                choices=(
                                    ("col", "stats"),
                                    ("leaf", "(jnp.zeros([]), jnp.ones([4]))"),
                                ),
                                inside=None,
                            ),
                        ),
                        setup=False,
                    ),
                ),
            ),
            setup=False,
        ),
        law="like_haiku",
        options=(("hook", "casting_state_getter"), ("train", "True"), ("use", "plain")),
        method="None",
        around="",
    ),
    "equal values written": Program(
        block=Block(
            parts=(
                Part(
                    kind="same",
                    choices=(("col", "stats"), ("leaf", "jnp.full([4], 0.5)")),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="like_haiku",
        options=(("hook", "none"), ("train", "True"), ("use", "plain")),
        method="None",
        around="",
    ),
    "caller's state changed": Program(
        block=Block(
            parts=(
                Part(
                    kind="counter",
                    choices=(
                        ("col", "stats"),
                        ("leaf", "{1.5: jnp.zeros([]), 2.5: jnp.ones([4])}"),
                        ("when", "not self.is_initializing()"),
                    ),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="same_apply",
        options=(("mutable", "None"), ("train", "True")),
        method="None",
        around="",
    ),
    "leaves of others": Program(
        block=Block(
            parts=(
                Part(
                    kind="param_of_any_kind",
                    choices=(("leaf", "jnp.full([4], 0.5)"),),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="own_leaves",
        options=(("hook", "own_leaf"),),
        method="None",
        around="",
    ),
    "stale shapes": Program(
        block=Block(
            parts=(Part(kind="param_by_attribute", choices=(), inside=None),),
            setup=True,
        ),
        law="same_again",
        options=(("change", "wider"),),
        method="None",
        around="",
    ),
    "method of a cell": Program(
        block=Block(
            parts=(
                Part(kind="noise_if_any", choices=(("stream", "noise"),), inside=None),
            ),
            setup=False,
        ),
        law="wrapped_cell",
        options=(("method", "'step'"), ("train", "True")),
        method="None",
        around="",
    ),
    "names in an interceptor": Program(
        block=Block(
            parts=(
                Part(
                    kind="counter",
                    choices=(
                        ("col", "stats"),
                        ("leaf", "jnp.full([4], 0.5)"),
                        ("when", "not self.is_initializing()"),
                    ),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="like_haiku",
        options=(("hook", "none"), ("train", "True"), ("use", "under_renaming")),
        method="None",
        around="",
    ),
    "tables of a holder": Program(
        block=Block(
            parts=(Part(kind="param_by_attribute", choices=(), inside=None),),
            setup=False,
        ),
        law="like_haiku",
        options=(("hook", "none"), ("train", "True"), ("use", "in_sequence")),
        method="None",
        around="",
    ),
    "shape that was asked for": Program(
        block=Block(
            parts=(
                Part(kind="layer", choices=(("layer", "nn.Dense(4)"),), inside=None),
            ),
            setup=False,
        ),
        law="like_haiku",
        options=(("hook", "stacking"), ("train", "True"), ("use", "plain")),
        method="None",
        around="",
    ),
    "leaf made while reading": Program(
        block=Block(
            parts=(
                Part(
                    kind="param",
                    choices=(("init", "nn.initializers.normal(), (4,)"),),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="like_haiku",
        options=(("hook", "none"), ("train", "True"), ("use", "then_own_leaf")),
        method="None",
        around="",
    ),
    "leaf made for a tree": Program(
        block=Block(
            parts=(
                Part(
                    kind="param_of_any_kind",
                    choices=(("leaf", "(None, jnp.ones([4]))"),),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="like_haiku",
        options=(("hook", "own_leaf"), ("train", "True"), ("use", "plain")),
        method="None",
        around="",
    ),
    "caught exception": Program(
        block=Block(
            parts=(Part(kind="memory", choices=(("col", "stats"),), inside=None),),
            setup=False,
        ),
        law="like_haiku",
        options=(("hook", "none"), ("train", "True"), ("use", "caught")),
        method="None",
        around="",
    ),
    "initialisers kept": Program(
        block=Block(
            parts=(
                Part(
                    kind="builtin",
                    choices=(("function", "{'a': 1.0 + variant}.get"),),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="nothing_is_kept",
        options=(),
        method="None",
        around="",
    ),
    "numbers given": Program(
        block=Block(
            parts=(
                Part(
                    kind="counter",
                    choices=(
                        ("col", "stats"),
                        ("leaf", "{'a': jnp.zeros([4]), 'b': {'c': jnp.ones([])}}"),
                        ("when", "not self.is_initializing()"),
                    ),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="given",
        options=(("part", "numbers"),),
        method="None",
        around="",
    ),
    "name of a wrapped class": Program(
        block=Block(
            parts=(
                Part(
                    kind="builtin",
                    choices=(("function", "{'a': 1.0 + variant}.get"),),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="wrapped_class",
        options=(("cls", "Cell"),),
        method="None",
        around="",
    ),
    "wrapped without call": Program(
        block=Block(
            parts=(
                Part(
                    kind="counter",
                    choices=(
                        ("col", "stats"),
                        ("leaf", "jnp.full([4], 0.5)"),
                        ("when", "not self.is_initializing()"),
                    ),
                    inside=None,
                ),
            ),
            setup=False,
        ),
        law="wrapped_class",
        options=(("cls", "Silent"),),
        method="None",
        around="",
    ),
}
