"""The line of the user's code that an equation comes from."""

import pathlib
import re
from typing import Any

from jax.extend import source_info_util

_LIBRARIES = re.compile(r"[/\\](jax|flax|haiku|hk_bridge|jaxlib)[/\\](?!tests)")


def line_of(eqn: Any) -> str:
    """`net.py:12 (Block.__call__)`, the innermost line that is of no library.

    >>> import jax
    >>> line_of(jax.make_jaxpr(lambda x: x + 1)(1.0).eqns[0]).rpartition(" ")[2]
    '(<lambda>)'
    """
    traceback = eqn.source_info.traceback
    frames = traceback.frames if traceback is not None else []
    for frame in frames:
        if not _LIBRARIES.search(frame.file_name):
            name = pathlib.PurePath(frame.file_name).name
            return f"{name}:{frame.line_num} ({frame.function_name})"
    return source_info_util.summarize(eqn.source_info) or "a line of no user's code"
