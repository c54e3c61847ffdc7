"""What the tests of the records share."""

import weakref

import pytest

from hk_bridge._flax import lifted


@pytest.fixture
def at_first(monkeypatch):
    """As in a process that has lifted nothing yet."""
    monkeypatch.setattr(lifted, "untold", weakref.WeakSet())
