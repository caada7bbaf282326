"""What a block of the cache holds, as a key: equal keys mean equal keys and values in every layer."""

import hashlib
from collections.abc import Sequence

from phi4.inputs import Medium, Rotary


def root_key(adapter: str | None, rotary: Rotary) -> bytes:
    """The key that the first block of a conversation is chained to.

    Adapter and rotary table change every key and value, so that nothing is shared between two of them (facts sheet
    6.3 and 1.5).
    """
    return _digest(f"{adapter!r} {rotary}")


def block_key(parent: bytes, token_ids: Sequence[int], start: int, media: Sequence[Medium]) -> bytes:
    """The key of one full block.

    Args:
        parent: key of the block before it, or `root_key`: keys and values depend on all that came before.
        token_ids: those of the block.
        start: position of the first of them in the conversation.
        media: of the whole conversation; those whose placeholders are in the block count, and which of their rows.
    """
    stop = start + len(token_ids)
    inside = [
        (medium.modality, medium.digest, start - medium.start)
        for medium in media
        if medium.start < stop and start < medium.start + medium.num_tokens
    ]
    return _digest(f"{parent.hex()} {list(token_ids)} {inside}")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
