"""What both kinds of call answer, and what each has to."""

import pytest

from hk_bridge._core.apply import Apply
from hk_bridge._core.init import Init
from hk_bridge._core.side import Side


def test_a_side_is_of_init_or_of_apply():
    asked = {"mutable", "may_share", "param", "settle", "start"}
    assert Side.__abstractmethods__ == asked
    with pytest.raises(TypeError, match="abstract"):
        Side(None, None, None)
    assert not Init.__abstractmethods__
    assert not Apply.__abstractmethods__
