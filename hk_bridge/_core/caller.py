"""Who calls, which only a frame tells.

A class knows the module that it was written in by `__module__`, which Python sets for
`class` statements, and nothing for a class that a function makes."""

import sys


def module_name(default: str) -> str:
    """The name of the module that called the function that asks, or `default`."""
    name: str = sys._getframe(2).f_globals.get("__name__", default)
    return name
