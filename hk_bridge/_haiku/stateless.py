"""Whether the transform that runs `init` is a plain `hk.transform`, told by its frames.

`hk.transform` and `hk.transform_with_state` differ only after the network has run: that
state is refused then, by an error that names no module. Private in Haiku (since
dm-haiku 0.0.16): `haiku._src.base.NonEmptyStateError`, and the code of
`haiku._src.transform.without_state`; a canary is in `tests/test_doors.py`. If it
changes, Haiku's own error comes, later.
"""

import sys

from haiku._src import base
from haiku._src import transform


def refuse_if_stateless(message: str) -> None:
    """Raises Haiku's own error if the transform is a plain `hk.transform`.

    Haiku's error comes after the whole network has run and names no module.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if (
            frame.f_code.co_name == "init_fn"
            and frame.f_code.co_filename == transform.__file__
        ):
            caller = frame.f_back
            if caller is not None and caller.f_code in _WITHOUT_STATE:
                raise base.NonEmptyStateError(message)
            return


_WITHOUT_STATE = [
    constant
    for constant in transform.without_state.__code__.co_consts
    if hasattr(constant, "co_name") and constant.co_name == "init_fn"
]
