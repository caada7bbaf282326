"""The state of one answer while it is generated, as far as the scheduler knows it: ids, blocks and limits."""

from dataclasses import dataclass, field

from phi4.engine.block_keys import block_key, root_key
from phi4.engine.prompt_lookup import PromptLookup
from phi4.inputs import Medium, Rotary


@dataclass(eq=False)
class BlockTable:
    """Where the keys and values of a row are kept under one rotary table.

    Attributes:
        rotary: the table that keys are rotated with.
        blocks: of the cache, in the order of the row's tokens.
        num_cached: tokens whose keys and values are there.
        keys: what full blocks hold, for as many as were asked for.
    """

    rotary: Rotary
    blocks: list[int] = field(default_factory=list)
    num_cached: int = 0
    keys: list[bytes] = field(default_factory=list)


@dataclass(eq=False)
class Row:
    """One answer on its way.

    Attributes:
        number: order of arrival; the smaller one comes first.
        priority: the greater one comes first.
        token_ids: prompt and answer so far.
        num_prompt_tokens: how many of them are the prompt.
        media: of the prompt.
        adapter: the LoRA of the conversation.
        max_length: tokens of prompt and answer together at which the answer ends.
        original_context: tokens up to which the short rotary table holds, or None if the model has one table.
        prompt_logprobs: how many best tokens are reported at each place of the prompt; None if it is not scored.
        table: what is cached.
        ahead: what is cached ahead of time with the long factors, for a row that will need them.
        found_tokens: how many of the prompt's tokens were in the cache when the row was first let in; None before.
        num_scored: tokens of the prompt that need not run for the scores behind them: nobody asked, or they have run.
        lookup: what guesses how the answer goes on.
        draft_tokens: how many tokens may be guessed next; it follows how many guesses were right.
    """

    number: int
    token_ids: list[int]
    max_length: int
    priority: int = 0
    media: tuple[Medium, ...] = ()
    adapter: str | None = None
    original_context: int | None = None
    prompt_logprobs: int | None = None
    num_prompt_tokens: int = field(init=False)
    table: BlockTable = field(init=False)
    ahead: BlockTable | None = field(init=False, default=None)
    num_scored: int = 0
    found_tokens: int | None = field(init=False, default=None)
    lookup: PromptLookup = field(init=False, default_factory=PromptLookup)
    draft_tokens: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.token_ids)
        self.table = BlockTable(self.rotary)

    @property
    def rank(self) -> tuple[int, int]:
        """Rows are served in this order: by priority, then by arrival."""
        return (-self.priority, self.number)

    @property
    def rotary(self) -> Rotary:
        """The LongRoPE table of the conversation at its present length (facts sheet 1.5)."""
        is_long = self.original_context is not None and len(self.token_ids) > self.original_context
        return "long" if is_long else "short"

    @property
    def num_missing(self) -> int:
        """Tokens that must run before the next one can be chosen."""
        return len(self.token_ids) - self.table.num_cached

    @property
    def num_reusable(self) -> int:
        """Tokens that need not run if they are cached: all but the last, behind which the next one is chosen.

        Of a prompt that is scored, those whose scores nobody asked for, or that are there already.
        """
        waits_for_scores = self.prompt_logprobs is not None and self.num_scored < self.num_prompt_tokens - 1
        return self.num_scored if waits_for_scores else len(self.token_ids) - 1

    @property
    def num_answer_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def is_full(self) -> bool:
        """Whether the answer has all the tokens that it may have."""
        return len(self.token_ids) >= self.max_length

    def block_keys(self, table: BlockTable, count: int, block_tokens: int) -> list[bytes]:
        """The keys of the first `count` blocks, which must be full."""
        while len(table.keys) < count:
            parent = table.keys[-1] if table.keys else root_key(self.adapter, table.rotary)
            start = len(table.keys) * block_tokens
            table.keys.append(block_key(parent, self.token_ids[start : start + block_tokens], start, self.media))
        return table.keys[:count]
