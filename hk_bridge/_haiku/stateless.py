"""Whether the transform that runs `init` is a plain `hk.transform`, told by its frames.

`hk.transform` and `hk.transform_with_state` differ only after the network has run: that
state is refused then, by an error that names no module. Private in Haiku (since
dm-haiku 0.0.16): `haiku._src.base.NonEmptyStateError`, and the code of
`hk.without_state`; a canary is in `tests/test_doors.py`. If it changes, Haiku's own
error comes, later.
"""

import sys

import haiku as hk

from hk_bridge._haiku import private


def refuse_if_stateless(message: str) -> None:
    """Raises Haiku's own error if the transform is a plain `hk.transform`.

    Haiku's error comes after the whole network has run and names no module.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        code = frame.f_code
        if code.co_name == "init_fn" and code.co_filename == _CODE.co_filename:
            is_stateless = frame.f_back and frame.f_back.f_code in _CODE.co_consts
            if is_stateless and private.NonEmptyStateError is not None:
                raise private.NonEmptyStateError(message)
            return


_CODE = hk.without_state.__code__
