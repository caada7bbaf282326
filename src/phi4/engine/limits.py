"""What bounds the steps of an engine."""

from dataclasses import dataclass

from phi4.errors import ConfigError

# Each guess asks for a row of scores, 800 KB for the vocabulary of the release.
MAX_DRAFT_TOKENS = 16


@dataclass(frozen=True)
class SchedulerLimits:
    """What bounds a step.

    Attributes:
        max_step_tokens: most tokens of one step; it bounds the memory of activations.
        max_rows: most rows that hold blocks at a time.
        block_tokens: tokens in a block.
        reuse_prefixes: whether blocks with the same content are shared.
        long_ahead: a row that will outgrow the short rotary table begins to be cached with the long one when this share
            of the original context is left: 1/7 of 4096 is at 3511 tokens. 0 never does so ahead of time.
        max_draft_tokens: most tokens of a row that prompt lookup guesses and one step checks, up to 16; 0 guesses none.
    """

    max_step_tokens: int = 1024
    max_rows: int = 64
    block_tokens: int = 32
    reuse_prefixes: bool = True
    long_ahead: float = 1 / 7
    max_draft_tokens: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.max_rows <= self.max_step_tokens:
            raise ConfigError(
                f"max_rows is {self.max_rows} and max_step_tokens (--max-batch-tokens) {self.max_step_tokens}: there "
                "must be at least one row, and a step must have room for a token of each; lower the first or raise the "
                "second"
            )
        if self.block_tokens < 1 or not 0 <= self.long_ahead <= 1:
            raise ConfigError(
                f"block_tokens must be at least 1, not {self.block_tokens}, and long_ahead from 0 to 1, not "
                f"{self.long_ahead}"
            )
        if not 0 <= self.max_draft_tokens <= MAX_DRAFT_TOKENS:
            raise ConfigError(f"max_draft_tokens must be from 0 to {MAX_DRAFT_TOKENS}, not {self.max_draft_tokens}")
