"""Calls of a module inside a call of the same module.

A Haiku module that calls itself reads what it wrote just before. So what an outer call
wrote goes to Haiku before the inner one reads, and comes back when that ends."""

from collections.abc import Iterator
import contextlib
import threading

from hk_bridge import _haiku
from hk_bridge._core.side import Side


class Room:
    """A call that runs now."""

    def __init__(self, name: str, depth: int):
        self.place = name, depth
        self.side: Side | None = None


class _Running(threading.local):
    def __init__(self) -> None:
        self.rooms: list[Room] = []


_running = _Running()


@contextlib.contextmanager
def room_for(owner: _haiku.Module) -> Iterator[Room]:
    """Where a call of `owner` runs, with the outer ones of it before and after."""
    rooms = _running.rooms
    room = Room(_haiku.name_in_force(owner), _haiku.depth())
    outer = [r.side for r in rooms if r.place == room.place and r.side is not None]
    for side in outer:
        side.flush()
    rooms.append(room)
    try:
        yield room
    finally:
        rooms.pop()
        if room.side is not None:
            for side in outer:
                side.refresh(room.side)
