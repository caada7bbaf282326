"""The blocks of the key/value cache: which are free, who shares them, and what the finished ones hold."""

import re
from collections import OrderedDict
from collections.abc import Sequence

# Blocks that are forgotten at a time when none is free. They mostly come from one conversation and are neighbours, so
# that what takes their place is in few pieces (docs/decisions/0016-blocks-in-contiguous-runs.md).
EVICTION_BLOCKS = 8

_FREE_RUN = re.compile(b"\x01+")


class BlockPool:
    """Reference counts, contents and places of a fixed number of blocks.

    A block is in one of three states: free; referenced by one or more rows; or unreferenced but remembered, because
    its content is known by a key and may be asked for again. Remembered blocks are forgotten, least recently used
    first, when no free ones are left.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._references = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._block_of_key: dict[bytes, int] = {}
        self._remembered: OrderedDict[int, None] = OrderedDict()
        self._free = bytearray(b"\x01" * num_blocks)
        self._num_free = num_blocks

    @property
    def num_available(self) -> int:
        """Blocks that `allocate` can give: free and remembered ones."""
        return self._num_free + len(self._remembered)

    @property
    def num_remembered(self) -> int:
        """Unreferenced blocks whose content may still be reused."""
        return len(self._remembered)

    def references(self, block: int) -> int:
        """How many rows hold a block."""
        return self._references[block]

    def allocate(self, count: int, after: int | None = None) -> list[int]:
        """Takes blocks with no content, neighbours in ascending order as far as possible.

        Args:
            count: how many.
            after: the block that they continue; its right neighbour is taken if it is free.

        Raises:
            ValueError: fewer are available.
        """
        if count > self.num_available:
            raise ValueError(f"{count} blocks are asked for, but {self.num_available} are available")
        blocks: list[int] = []
        place = self.num_blocks if after is None else after + 1
        while len(blocks) < count:
            if place >= self.num_blocks or not self._free[place]:
                place = self._find_place(count - len(blocks))
            self._free[place] = 0
            self._num_free -= 1
            self._references[place] = 1
            blocks.append(place)
            place += 1
        return blocks

    def count_known(self, keys: Sequence[bytes]) -> tuple[int, int]:
        """How many of these keys, from the first one on, are held by blocks; and how many of those are unreferenced."""
        known = unreferenced = 0
        for key in keys:
            block = self._block_of_key.get(key)
            if block is None:
                break
            known += 1
            unreferenced += self._references[block] == 0
        return known, unreferenced

    def share(self, keys: Sequence[bytes]) -> list[int]:
        """Takes a reference to the blocks that hold these contents, from the first key to the last one that is known.

        No block and no token is copied.
        """
        blocks = []
        for key in keys:
            block = self._block_of_key.get(key)
            if block is None:
                break
            self._references[block] += 1
            self._remembered.pop(block, None)
            blocks.append(block)
        return blocks

    def register(self, block: int, key: bytes) -> None:
        """Says what a referenced, full block holds. Where another block holds the same, that one stays known."""
        if key not in self._block_of_key and self._keys[block] is None:
            self._block_of_key[key] = block
            self._keys[block] = key

    def release(self, blocks: Sequence[int]) -> None:
        """Gives references back. The last of the blocks is forgotten first: a beginning is of use to more rows."""
        for block in reversed(blocks):
            self._references[block] -= 1
            if self._references[block] == 0:
                if self._keys[block] is None:
                    self._make_free(block)
                else:
                    self._remembered[block] = None

    def _find_place(self, wanted: int) -> int:
        """A free block to begin with: in the middle of the longest free run, as its left neighbour may be growing."""
        if not self._num_free:
            self._forget(max(wanted, EVICTION_BLOCKS))
        longest = max(_FREE_RUN.finditer(self._free), key=lambda run: run.end() - run.start())
        room = longest.end() - longest.start() - wanted
        return longest.start() + (room // 2 if room > 0 and longest.start() > 0 else 0)

    def _forget(self, count: int) -> None:
        for _ in range(min(count, len(self._remembered))):
            block, _ = self._remembered.popitem(last=False)
            key = self._keys[block]
            assert key is not None
            del self._block_of_key[key]
            self._keys[block] = None
            self._make_free(block)

    def _make_free(self, block: int) -> None:
        self._free[block] = 1
        self._num_free += 1
