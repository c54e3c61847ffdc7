"""Haiku's own tests, with bridged modules in place of Haiku's.

`pytest tests/downstream/haiku_suite` runs a fixed part of them, and all of them with
`HAIKU_SUITE=whole` in the environment. Haiku's wheel ships the tests; none is copied.

Each is also run as it is, with Haiku's own module: the control. Where that fails, the
test is not counted, and is a skip. What passes there and fails with the bridged module
stands in `expected.py` with a reason, and is a strict expected failure. So the figures
are in pytest's last line: passed, xfailed (those in the list), skipped (not counted;
`-rs` says why).
"""
