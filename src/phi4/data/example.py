"""An example: a record as token ids, with the tokens that are to be learnt."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from phi4.data.record import Record
from phi4.errors import DataError
from phi4.inputs import ModelInputs
from phi4.processing.messages import Message
from phi4.processing.processor import Processor
from phi4.processing.tokenizer import Tokenizer


@dataclass(frozen=True, eq=False)
class Example:
    """One record, ready for training.

    Attributes:
        inputs: the whole conversation.
        output_rows: positions in `inputs.token_ids` whose next token is scored, ascending.
        targets: those next tokens.
        record: what it was made of.
        rejected: the same conversation with the rejected answer, for objectives that compare; else None.
        divisible: whether every run of its tokens is an example too, as of a text without a chat around it.
    """

    inputs: ModelInputs
    output_rows: tuple[int, ...]
    targets: tuple[int, ...]
    record: Record
    rejected: "Example | None" = None
    divisible: bool = False

    @property
    def num_tokens(self) -> int:
        """What it takes of a row."""
        return len(self.inputs.token_ids) + (0 if self.rejected is None else self.rejected.num_tokens)

    @property
    def answer(self) -> str:
        """The text of the last answer."""
        return self.record.answer


def encode_example(
    record: Record, processor: Processor, eos_token_ids: Sequence[int], spelled: bool = False
) -> Example:
    """Prepares a record for training on its answers.

    Learnt is what the model will have to say when it is served: every answer behind its opener, up to and including the
    first end token. What the template writes behind that is context and nothing else.

    Args:
        record: a conversation.
        processor: the one that will serve the model.
        eos_token_ids: tokens that end an answer.
        spelled: whether answers are written letter by letter, in more tokens for the same text.

    Raises:
        InputError: a text or medium cannot be used.
        CapacityError: the conversation is longer than the context.
        DataError: the template, having seen an answer, lays out differently what came before it, or ends it with none
            of the end tokens.
    """
    messages = record.messages
    whole = processor.encode(messages, add_generation_prompt=False)
    end_tokens = frozenset(eos_token_ids)
    answers: list[range] = []
    for index, message in enumerate(messages):
        if message.role != "assistant":
            continue
        last = index == len(messages) - 1
        turn = whole if last else processor.encode(messages[: index + 1], add_generation_prompt=False)
        answer = _answer_places(record, index, processor.encode(messages[:index]), turn, end_tokens)
        if whole[: answer.stop] != turn[: answer.stop]:
            raise DataError(
                f"record {record.id!r}: the chat template changes message {index + 1}, an answer, when the "
                "conversation goes on; cut the record behind it"
            )
        answers.append(answer)
    if spelled:
        whole, answers = _spell(whole, answers, processor.tokenizer)
    inputs = processor.prepare_media(whole, [part for message in messages for part in message.media])
    moved = _behind_media([place for answer in answers for place in answer], inputs)
    return Example(
        inputs=inputs,
        output_rows=tuple(place - 1 for place in moved),
        targets=tuple(inputs.token_ids[place] for place in moved),
        record=record,
    )


def encode_text(record: Record, processor: Processor, begin: int, end: int) -> Example:
    """Prepares the text of a record's last answer for training on each of its tokens; there is no chat around it.

    Args:
        record: a text, as curation writes it: its question is empty, its answer is the text.
        processor: the one that will serve the model.
        begin: token that stands before a text and is not learnt.
        end: token that ends a text.

    Raises:
        InputError: the text cannot be encoded.
        DataError: the record has more than a text: another message, or a medium.
    """
    if len(record.messages) > 2 or any(part for part in record.messages[0].parts):
        raise DataError(
            f"record {record.id!r} is a conversation; a text has an empty question and nothing but its answer. "
            "Conversations are learnt with Answers()"
        )
    token_ids = (begin, *processor.tokenizer.encode(record.answer, allow_special=False), end)
    return Example(ModelInputs(token_ids), tuple(range(len(token_ids) - 1)), token_ids[1:], record, divisible=True)


def run_of_tokens(example: Example, start: int, length: int) -> Example:
    """Neighbouring tokens of a divisible example, as an example.

    Args:
        example: of a text.
        start: first of its tokens.
        length: number of tokens; fewer where the text ends before.
    """
    token_ids = example.inputs.token_ids[start : start + length]
    rows = tuple(range(len(token_ids) - 1))
    return replace(example, inputs=ModelInputs(token_ids), output_rows=rows, targets=token_ids[1:])


def cut_into_runs(example: Example, length: int) -> list[Example]:
    """Cuts a divisible example into runs of at most so many tokens that learn each of its targets once.

    An example that is short enough, or not divisible, stays whole.
    """
    if not example.divisible or example.num_tokens <= length:
        return [example]
    # The last token of a run is the first of the next: it has to stand before what follows it.
    return [run_of_tokens(example, start, length) for start in range(0, example.num_tokens - 1, length - 1)]


def encode_preference(record: Record, processor: Processor, eos_token_ids: Sequence[int]) -> Example:
    """Prepares a record with a rejected answer: the example of the conversation, and in it that of the other ending.

    Arguments and errors are those of `encode_example`.

    Raises:
        DataError: the record has no rejected answer.
    """
    if record.rejected is None:
        raise DataError(f"record {record.id!r} has no rejected answer; a preference needs one in its field `rejected`")
    other = replace(
        record, messages=(*record.messages[:-1], Message("assistant", record.rejected)), rejected=record.answer
    )
    chosen, rejected = (encode_example(ending, processor, eos_token_ids) for ending in (record, other))
    return replace(chosen, rejected=rejected)


def _answer_places(record: Record, index: int, prompt: list[int], turn: list[int], end_tokens: frozenset[int]) -> range:
    """Where the tokens of one answer stand.

    Args:
        record: the conversation.
        index: of the answer among its messages.
        prompt: what stands before the answer, with its opener; placeholders are not expanded.
        turn: the same with the answer.
        end_tokens: those that end an answer.
    """
    start = len(prompt)
    if turn[:start] != prompt:
        raise DataError(
            f"record {record.id!r}: with the answer of message {index + 1} behind it, the prompt has other tokens than "
            f"alone, as it is served; check the white space that the answer begins with: {record.messages[index]!r:.80}"
        )
    for place in range(start, len(turn)):
        if turn[place] in end_tokens:
            return range(start, place + 1)
    raise DataError(
        f"record {record.id!r}: the chat template ends message {index + 1}, an answer, with none of the end tokens "
        f"{sorted(end_tokens)}; name the one that it writes in generation_config.json"
    )


def _spell(token_ids: list[int], answers: Sequence[range], tokenizer: Tokenizer) -> tuple[list[int], list[range]]:
    """Writes the answers of a conversation letter by letter; returns all its tokens and where the answers stand."""
    spelled: list[int] = []
    places = []
    end = 0
    for answer in answers:
        spelled += token_ids[end : answer.start]
        letters = tokenizer.spell(token_ids[answer.start : answer.stop])
        places.append(range(len(spelled), len(spelled) + len(letters)))
        spelled += letters
        end = answer.stop
    return spelled + token_ids[end:], places


def _behind_media(places: Sequence[int], inputs: ModelInputs) -> list[int]:
    """Moves ascending places by as much as the placeholders before them grew."""
    moved = []
    media = deque(inputs.media)
    growth = 0
    for place in places:
        while media and media[0].start < place + growth:
            growth += media.popleft().num_tokens - 1
        moved.append(place + growth)
    return moved
