"""No property is timed, whichever tests are chosen."""

import hypothesis

# What the tests of a module are given when it is imported.
DEADLINE = hypothesis.settings.default.deadline


def test_no_property_is_timed() -> None:
    assert DEADLINE is None
