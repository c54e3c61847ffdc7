"""A bar that shows how far a search is."""

import contextlib
import sys
from typing import Any

from hk_bridge.migrate._extras import extra

_SLOW = 2_000  # steps from which on a bar is shown in a terminal


@contextlib.contextmanager
def bar(progress: bool | None) -> Any:
    """What is told how far the search is: `tick(done, total)`."""
    shown: list[Any] = []
    if progress is False:
        yield lambda done, total: None
        return

    def tick(done: int, total: int) -> None:
        if (
            not shown
            and progress is None
            and (total < _SLOW or not sys.stderr.isatty())
        ):
            return
        if not shown:
            try:
                shown.append(extra("tqdm").tqdm(total=total, unit="step", ncols=80))
            except ModuleNotFoundError:
                if progress:
                    raise
                return
        shown[0].update(max(done - shown[0].n, 0))

    try:
        yield tick
    finally:
        for one in shown:
            one.close()
