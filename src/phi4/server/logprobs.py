"""Log-probabilities in OpenAI's two shapes."""

from collections.abc import Sequence

from phi4.engine.sampler import LogProbabilities
from phi4.processing.tokenizer import TextStream, Tokenizer
from phi4.server.responses import CompletionLogprobs, TokenLogprob, TopLogprob


def chat_logprob(tokenizer: Tokenizer, token_id: int, found: LogProbabilities) -> TokenLogprob:
    """One token of a chat's answer."""
    written = tokenizer.token_bytes(token_id)
    best = [(tokenizer.token_bytes(best_id), logprob) for best_id, logprob in found.best]
    return TokenLogprob(
        token=written.decode("utf-8", "replace"),
        logprob=found.chosen,
        bytes=list(written),
        top_logprobs=[TopLogprob(one.decode("utf-8", "replace"), logprob, list(one)) for one, logprob in best],
    )


class TextOffsets:
    """Where tokens begin in the text of a completion; a character of several tokens is there with the last of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._stream = TextStream(tokenizer, skip_special=False)
        self._end = 0

    def take(self, token_id: int) -> int:
        """Where the next token begins, in characters."""
        begin = self._end
        self._end += len(self._stream.push(token_id))
        return begin


def completion_logprobs(
    tokenizer: Tokenizer, tokens: Sequence[tuple[int, LogProbabilities | None]], offsets: TextOffsets
) -> CompletionLogprobs:
    """All tokens of a completion, or of a piece of one.

    Args:
        tokenizer: the model's.
        tokens: ids with what was found for them; the first token of a prompt has nothing.
        offsets: of the completion; they go on from piece to piece.
    """
    names = [_name(tokenizer, token_id) for token_id, _ in tokens]
    return CompletionLogprobs(
        tokens=names,
        token_logprobs=[None if found is None else found.chosen for _, found in tokens],
        top_logprobs=[
            None if found is None else _best(tokenizer, name, found)
            for name, (_, found) in zip(names, tokens, strict=True)
        ],
        text_offset=[offsets.take(token_id) for token_id, _ in tokens],
    )


def _best(tokenizer: Tokenizer, name: str, found: LogProbabilities) -> dict[str, float]:
    """The best tokens by what they are called, and the one that stands there whether it is among them or not."""
    best: dict[str, float] = {}
    for token_id, logprob in found.best:
        best.setdefault(_name(tokenizer, token_id), logprob)
    best.setdefault(name, found.chosen)
    return best


def _name(tokenizer: Tokenizer, token_id: int) -> str:
    """The text of a token, or its bytes where they are no whole characters."""
    written = tokenizer.token_bytes(token_id)
    try:
        return written.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in written)
