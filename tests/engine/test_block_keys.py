"""A block is reused for the same content only: tokens, media, adapter, rotary table and all that came before."""

import pytest

from phi4.engine.block_keys import block_key, root_key
from phi4.inputs import Medium, Rotary

ROOT = root_key("vision", "short")
PICTURE = Medium("vision", None, start=3, num_tokens=6, digest="a")


def test_equal_content_has_equal_keys() -> None:
    assert block_key(ROOT, [1, 2, 3, 9], 0, [PICTURE]) == block_key(ROOT, (1, 2, 3, 9), 0, [PICTURE])


@pytest.mark.parametrize(("adapter", "rotary"), [("vision", "long"), ("speech", "short"), (None, "short")])
def test_adapter_and_rotary_table_are_part_of_the_key(adapter: str | None, rotary: Rotary) -> None:
    root = root_key(adapter, rotary)
    assert root != ROOT
    assert block_key(root, [1, 2], 0, []) != block_key(ROOT, [1, 2], 0, [])


def test_an_adapter_cannot_be_called_none() -> None:
    assert root_key("None", "short") != root_key(None, "short")


@pytest.mark.parametrize(
    "other",
    [
        Medium("vision", None, start=3, num_tokens=6, digest="b"),
        Medium("speech", None, start=3, num_tokens=6, digest="a"),
        Medium("vision", None, start=2, num_tokens=6, digest="a"),
    ],
)
def test_placeholders_of_another_medium_or_of_its_other_rows_have_another_key(other: Medium) -> None:
    assert block_key(ROOT, [9, 9, 9, 9], 4, [other]) != block_key(ROOT, [9, 9, 9, 9], 4, [PICTURE])


def test_a_medium_outside_the_block_counts_through_the_chain_alone() -> None:
    other = Medium("vision", None, start=3, num_tokens=6, digest="b")
    assert block_key(ROOT, [1, 2], 0, [PICTURE]) == block_key(ROOT, [1, 2], 0, [other])
    before, before_other = (block_key(ROOT, [9, 9], 6, [medium]) for medium in (PICTURE, other))
    assert block_key(before, [1, 2], 9, [PICTURE]) != block_key(before_other, [1, 2], 9, [other])
