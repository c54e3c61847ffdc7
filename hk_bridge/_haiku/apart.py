"""Code that must not ask Haiku for anything.

Private in Haiku: `haiku._src.base.frame_stack` and `context_stack`. Nothing public has
code run where it is an error to ask.
"""

from collections.abc import Callable
from typing import Any

from haiku._src import base


class HaikuAsked(Exception):
    """Code that was to do without Haiku asked it for something."""


class _Closed:
    """A frame, and a context, of a transform that answers nothing.

    Every function of Haiku that looks at the transform that it is called in reads an
    attribute of one of them."""

    def __init__(self) -> None:
        self.__dict__["asked"] = False

    def __getattr__(self, name: str) -> Any:
        self.__dict__["asked"] = True  # the code may catch the exception
        raise HaikuAsked(f"There is no {name} here.")


def apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, where it is an error to ask Haiku for anything."""

    def run(*args: Any, **kwargs: Any) -> Any:
        closed = _Closed()
        frame: Any = closed
        context: Any = closed
        with base.frame_stack(frame), base.context_stack(context):
            result = function(*args, **kwargs)
        if closed.asked:
            raise HaikuAsked("The code asked, and went on.")
        return result

    return run


def is_apart() -> bool:
    """Whether this runs where it is an error to ask Haiku for anything."""
    frame: Any = base.frame_stack.peek() if base.frame_stack else None
    return isinstance(frame, _Closed)
