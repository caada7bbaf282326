"""The public names are there, sorted, and every error that is raised on purpose is among them."""

import phi4
from phi4 import errors


def test_public_names_are_sorted_and_exist() -> None:
    assert phi4.__all__ == sorted(phi4.__all__)
    assert all(getattr(phi4, name).__name__ == name for name in phi4.__all__)


def test_every_error_is_public() -> None:
    assert {name for name in vars(errors) if name.endswith("Error")} <= set(phi4.__all__)
