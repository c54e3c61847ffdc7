"""Axes as linen takes them: a number or several, from the front or the back."""

from collections.abc import Sequence


def as_axes(axes: int | Sequence[int] | None, n: int = 1) -> tuple[int, ...]:
    """`axes` as a tuple, a number `n` times; None is 1, as in linen's convolutions."""
    axes = 1 if axes is None else axes
    return (axes,) * n if isinstance(axes, int) else tuple(axes)
