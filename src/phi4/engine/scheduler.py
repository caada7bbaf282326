"""Decides which tokens of which rows run in the next step, and whose blocks they are kept in."""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

from phi4.engine.block_pool import BlockPool
from phi4.engine.limits import SchedulerLimits
from phi4.engine.plan import Piece, Plan
from phi4.engine.row import BlockTable, Row
from phi4.errors import CapacityError


@dataclass
class Counts:
    """What happened since the scheduler was made.

    Attributes:
        preempted: rows that gave up their blocks to others and were computed again.
        switched: rows that outgrew the short rotary table.
        reused_tokens: tokens that were found in the cache instead of being computed.
    """

    preempted: int = 0
    switched: int = 0
    reused_tokens: int = 0


class Scheduler:
    """Rows that wait and rows that run. It knows no tensors; whoever runs its plans calls `commit` afterwards."""

    def __init__(self, pool: BlockPool, limits: SchedulerLimits) -> None:
        self.pool = pool
        self.limits = limits
        self.waiting: list[Row] = []
        self.running: list[Row] = []
        self.counts = Counts()

    @property
    def has_rows(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.waiting or self.running)

    def add(self, row: Row) -> None:
        """Queues a row.

        Raises:
            CapacityError: its prompt is larger than the whole cache.
        """
        if error := self.too_long(len(row.token_ids)):
            raise error
        insort(self.waiting, row, key=lambda waiting: waiting.rank)

    def remove(self, row: Row) -> None:
        """Forgets a row that is finished, failed or cancelled; it gives its blocks back."""
        self._release(row)
        rows = self.running if row in self.running else self.waiting
        rows.remove(row)

    def reset(self) -> None:
        """Forgets all rows and whatever is cached."""
        self.pool = BlockPool(self.pool.num_blocks)
        self.waiting, self.running = [], []

    def schedule(self) -> Plan:
        """Plans a step: a token of every row that is being answered, then prompts, the long tables, and guesses."""
        outgrown = self._place_rows()
        usable = [row for row in self.running if row not in outgrown]
        answering = [row for row in usable if row.num_missing == 1]
        budget = self.limits.max_step_tokens - len(answering)
        pieces = self._plan_prompts([row for row in usable if row.num_missing > 1], budget)
        pieces += self._plan_ahead(answering, budget - _num_tokens(pieces))
        pieces += self._plan_answers(answering, budget - _num_tokens(pieces))
        # Rows that share an adapter stand together: it is then applied once.
        pieces.sort(key=lambda piece: piece.row.adapter or "")
        return Plan(pieces, outgrown)

    def commit(self, piece: Piece, num_right: int = 0) -> None:
        """Notes that a piece has run: its tokens are cached, and full blocks may be shared.

        Args:
            piece: of the last plan; its row was not removed since.
            num_right: how many of its drafts are the row's next tokens, to which they were added by now. What is
                cached of the others will be written over.
        """
        table, end = piece.table, piece.start + piece.length + num_right
        first, last = table.num_cached // self.limits.block_tokens, end // self.limits.block_tokens
        piece.row.num_scored += len(piece.scored_prompt)
        table.num_cached = end
        if piece.drafts:
            piece.row.draft_tokens = 2 * num_right + 1
        if self.limits.reuse_prefixes:
            keys = piece.row.block_keys(table, last, self.limits.block_tokens)
            for index in range(first, last):
                self.pool.register(table.blocks[index], keys[index])

    def too_long(self, num_tokens: int) -> CapacityError | None:
        """The error of a conversation that the cache cannot hold even if it is alone, or None; any thread may ask."""
        if self._num_blocks(num_tokens) <= self.pool.num_blocks:
            return None
        return CapacityError(
            f"the conversation has {num_tokens} tokens, but the whole cache holds "
            f"{self.pool.num_blocks * self.limits.block_tokens}; "
            "shorten it, or ask for a larger cache (cache_tokens, --cache-tokens)"
        )

    def _num_blocks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.limits.block_tokens)

    def _place_rows(self) -> list[Row]:
        """Gives running rows their blocks and lets others in; returns the rows that outgrew the whole cache."""
        for row in self.running:
            if row.rotary != row.table.rotary:
                self._switch_rotary(row)
        preempted, outgrown = self.counts.preempted, []
        for row in sorted(self.running, key=lambda running: running.rank):
            if row in self.running and not self._grow(row):
                outgrown.append(row)
        if preempted == self.counts.preempted:
            self._admit()
        self.running.sort(key=lambda row: row.rank)
        return outgrown

    def _switch_rotary(self, row: Row) -> None:
        """Starts a row over with the long factors: keys rotated with the short ones are of no use (facts sheet 1.5)."""
        self.counts.switched += 1
        self.pool.release(row.table.blocks)
        if row.ahead is not None:
            row.table, row.ahead = row.ahead, None
        else:
            row.table = BlockTable(row.rotary)
            self._take_known_blocks(row, row.table)

    def _take_known_blocks(self, row: Row, table: BlockTable) -> None:
        """Begins an empty table with the blocks that somebody computed already."""
        table.blocks = self.pool.share(self._reusable_keys(row, table))
        table.num_cached = len(table.blocks) * self.limits.block_tokens
        self.counts.reused_tokens += table.num_cached

    def _reusable_keys(self, row: Row, table: BlockTable) -> list[bytes]:
        """Keys of the full blocks of a row that need not run."""
        if not self.limits.reuse_prefixes:
            return []
        return row.block_keys(table, row.num_reusable // self.limits.block_tokens, self.limits.block_tokens)

    def _grow(self, row: Row) -> bool:
        """Gives a running row blocks for all its tokens; others, or the row itself, may have to give theirs up.

        Returns:
            False if the row is larger than the whole cache.
        """
        if self._num_blocks(len(row.token_ids)) > self.pool.num_blocks:
            self._release(row)
            return False
        while (needed := self._num_blocks(len(row.token_ids)) - len(row.table.blocks)) > self.pool.num_available:
            if not self._drop_ahead():
                victim = max(self.running, key=lambda running: running.rank)
                self._preempt(victim)
                if victim is row:
                    return True
        self._extend(row.table, needed)
        return True

    def _extend(self, table: BlockTable, count: int) -> None:
        if count > 0:
            table.blocks += self.pool.allocate(count, after=table.blocks[-1] if table.blocks else None)

    def _drop_ahead(self) -> bool:
        """Takes blocks back that were filled ahead of time; those of the row that is served last go first."""
        holders = [row for row in self.running if row.ahead is not None]
        if not holders:
            return False
        self._release_ahead(max(holders, key=lambda row: row.rank))
        return True

    def _release_ahead(self, row: Row) -> None:
        if row.ahead is not None:
            self.pool.release(row.ahead.blocks)
            row.ahead = None

    def _release(self, row: Row) -> None:
        self._release_ahead(row)
        self.pool.release(row.table.blocks)
        row.table = BlockTable(row.rotary)

    def _preempt(self, row: Row) -> None:
        """Takes all blocks of a row; it keeps its place in the order of arrival and is computed again."""
        self.counts.preempted += 1
        self._release(row)
        self.running.remove(row)
        insort(self.waiting, row, key=lambda waiting: waiting.rank)

    def _admit(self) -> None:
        """Lets rows in as long as there is room for all their tokens; nobody is overtaken because of his size.

        A row whose prompt begins like one that is being read waits until it can share what they have in common.
        """
        for row in list(self.waiting):
            if any(self._computes_block_of(running, row) for running in self.running):
                continue
            if not self._make_room(row):
                return
            self.waiting.remove(row)
            self.running.append(row)
            self._take_known_blocks(row, row.table)
            if row.found_tokens is None:
                row.found_tokens = row.table.num_cached
            self._extend(row.table, self._num_blocks(len(row.token_ids)) - len(row.table.blocks))

    def _computes_block_of(self, running: Row, waiting: Row) -> bool:
        """Whether the block that a running row computes next is one that a waiting row needs, and that nobody has yet.

        Nobody waits in a circle or for ever: it is a running row that is waited for, and only as long as it runs.
        """
        if not self.limits.reuse_prefixes:
            return False
        block_tokens = self.limits.block_tokens
        index = running.table.num_cached // block_tokens
        if (index + 1) * block_tokens > min(len(running.token_ids), waiting.num_reusable):
            return False
        key = waiting.block_keys(waiting.table, index + 1, block_tokens)[index]
        is_same = running.block_keys(running.table, index + 1, block_tokens)[index] == key
        return is_same and not self.pool.count_known([key])[0]

    def _make_room(self, row: Row) -> bool:
        """Whether a waiting row has room by now; rows of a lower priority give theirs up if that helps."""
        while not self._fits(row):
            victims = [running for running in self.running if running.priority < row.priority]
            if not victims:
                return False
            self._preempt(max(victims, key=lambda running: running.rank))
        return True

    def _fits(self, row: Row) -> bool:
        """Whether there are blocks for all tokens of a waiting row, and one more for every running row to grow."""
        known, unreferenced = self.pool.count_known(self._reusable_keys(row, row.table))
        needed = self._num_blocks(len(row.token_ids)) - known
        available = self.pool.num_available - unreferenced - len(self.running)
        return len(self.running) < self.limits.max_rows and needed <= available

    def _plan_prompts(self, prefilling: Sequence[Row], budget: int) -> list[Piece]:
        """The next chunk of each prompt."""
        lengths = share_budget([row.num_missing for row in prefilling], budget)
        return [
            Piece(row, row.table, row.table.num_cached, length)
            for row, length in zip(prefilling, lengths, strict=True)
            if length
        ]

    def _plan_answers(self, answering: Sequence[Row], budget: int) -> list[Piece]:
        """The next token of each row, with guesses behind it as far as budget and free blocks allow."""
        pieces = []
        for row in answering:
            drafts = self._draft(row, budget)
            budget -= len(drafts)
            pieces.append(Piece(row, row.table, row.table.num_cached, 1, drafts))
        return pieces

    def _draft(self, row: Row, budget: int) -> tuple[int, ...]:
        """Guesses of how a row goes on; they never reach its end, nor the place where its rotary table changes."""
        if not self.limits.max_draft_tokens:
            return ()
        length = len(row.token_ids)
        room = row.max_length - length - 1
        if row.original_context is not None and row.rotary == "short":
            room = min(room, row.original_context - length)
        drafts = row.lookup.propose(
            row.token_ids, max(0, min(room, budget, row.draft_tokens, self.limits.max_draft_tokens))
        )
        needed = self._num_blocks(length + len(drafts)) - len(row.table.blocks)
        if needed > self.pool.num_available - len(self.running):
            return ()
        self._extend(row.table, needed)
        return drafts

    def _plan_ahead(self, answering: Sequence[Row], budget: int) -> list[Piece]:
        """Uses what is left of a step to cache rows with the long factors that will need them soon.

        The tokens that this takes are spread evenly over the steps up to the switch, so that no step stands out.
        """
        pieces = []
        for row in answering:
            steps_left = self._steps_to_long(row)
            if steps_left is None or budget <= 0:
                continue
            if row.ahead is None:
                row.ahead = BlockTable("long")
                self._take_known_blocks(row, row.ahead)
            cached = row.ahead.num_cached
            share = -(-(len(row.token_ids) + steps_left - cached) // (steps_left + 1))
            length = min(share, len(row.token_ids) - cached, budget)
            needed = self._num_blocks(cached + length) - len(row.ahead.blocks)
            if length > 0 and needed <= self.pool.num_available - len(self.running):
                self._extend(row.ahead, needed)
                pieces.append(Piece(row, row.ahead, cached, length))
                budget -= length
        return pieces

    def _steps_to_long(self, row: Row) -> int | None:
        """Tokens that a row may still take with the short table, if it is about to outgrow it."""
        if row.original_context is None or row.max_length <= row.original_context:
            return None
        left = row.original_context - len(row.token_ids)
        return left if 0 <= left < self.limits.long_ahead * row.original_context else None


def _num_tokens(pieces: Sequence[Piece]) -> int:
    return sum(piece.length for piece in pieces)


def share_budget(wanted: Sequence[int], budget: int) -> list[int]:
    """Divides a budget evenly; what one does not need goes to the others, the first ones before the last."""
    lengths = [0] * len(wanted)
    while budget > 0 and any(length < want for length, want in zip(lengths, wanted, strict=True)):
        hungry = [place for place, want in enumerate(wanted) if lengths[place] < want]
        share = max(1, budget // len(hungry))
        for place in hungry:
            given = min(share, wanted[place] - lengths[place], budget)
            lengths[place] += given
            budget -= given
    return lengths
