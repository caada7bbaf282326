"""What the scheduler decides: the pieces of one step."""

from dataclasses import dataclass

from phi4.engine.row import BlockTable, Row


@dataclass(frozen=True, eq=False)
class Piece:
    """Tokens of one row that run in one step.

    Attributes:
        row: whose they are.
        table: where their keys and values go: the row's own, or the one that is built ahead.
        start: position of the first.
        length: how many, without drafts.
        drafts: guesses of how the row goes on, which run behind its last token.
    """

    row: Row
    table: BlockTable
    start: int
    length: int
    drafts: tuple[int, ...] = ()

    @property
    def token_ids(self) -> list[int]:
        """What runs."""
        return [*self.row.token_ids[self.start : self.start + self.length], *self.drafts]

    @property
    def num_choices(self) -> int:
        """How many places are scored: one if the row's last token is in the piece, and one for each draft."""
        chooses = self.table is self.row.table and self.start + self.length == len(self.row.token_ids)
        return 1 + len(self.drafts) if chooses else 0

    @property
    def scored_prompt(self) -> range:
        """Positions in the prompt, the token behind each of which is scored."""
        row = self.row
        if row.prompt_logprobs is None or self.table is not row.table:
            return range(0)
        return range(max(self.start, row.num_scored), min(self.start + self.length, row.num_prompt_tokens - 1))


@dataclass(frozen=True)
class Plan:
    """One step.

    Attributes:
        pieces: what runs.
        outgrown: rows that outgrew the whole cache; they hold no blocks any more and must be removed.
    """

    pieces: list[Piece]
    outgrown: list[Row]
