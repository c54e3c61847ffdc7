"""The line of the user's code that an equation comes from."""

import pathlib
import re
from typing import Any

_LIBRARIES = re.compile(r"[/\\](jax|flax|haiku|hk_bridge|jaxlib)[/\\](?!tests)")
_JAX = re.compile(r"[/\\](jax|jaxlib)[/\\]")


def line_of(eqn: Any) -> str:
    """`net.py:12 (Block.__call__)`, the innermost line that is of no library.

    >>> import jax
    >>> line_of(jax.make_jaxpr(lambda x: x + 1)(1.0).eqns[0]).rpartition(" ")[2]
    '(<lambda>)'
    """
    traceback = eqn.source_info.traceback
    frames = traceback.frames if traceback is not None else []
    users = [f for f in frames if not _LIBRARIES.search(f.file_name)]
    known = [f for f in frames if not _JAX.search(f.file_name)]
    for frame in [*users, *known][:1]:
        name = pathlib.PurePath(frame.file_name).name
        return f"{name}:{frame.line_num} ({frame.function_name})"
    return "a line of no user's code"
