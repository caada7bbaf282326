"""An example: a record as token ids, with the tokens that are to be learnt."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from phi4.data.record import Record
from phi4.errors import DataError
from phi4.inputs import ModelInputs
from phi4.processing.processor import Processor


@dataclass(frozen=True, eq=False)
class Example:
    """One record, ready for training.

    Attributes:
        inputs: the whole conversation.
        output_rows: positions in `inputs.token_ids` whose next token is scored, ascending.
        targets: those next tokens.
        record: what it was made of.
    """

    inputs: ModelInputs
    output_rows: tuple[int, ...]
    targets: tuple[int, ...]
    record: Record

    @property
    def answer(self) -> str:
        """The text of the last answer."""
        return self.record.answer


def encode_example(record: Record, processor: Processor, eos_token_ids: Sequence[int]) -> Example:
    """Prepares a record for training on its answers.

    Learnt is what the model will have to say when it is served: every answer behind its opener, up to and including the
    first end token. What the template writes behind that is context and nothing else.

    Args:
        record: a conversation.
        processor: the one that will serve the model.
        eos_token_ids: tokens that end an answer.

    Raises:
        InputError: a text or medium cannot be used.
        CapacityError: the conversation is longer than the context.
        DataError: the template, having seen an answer, lays out differently what came before it, or ends it with none
            of the end tokens.
    """
    messages = record.messages
    whole = processor.encode(messages, add_generation_prompt=False)
    inputs = processor.prepare_media(whole, [part for message in messages for part in message.media])
    end_tokens = frozenset(eos_token_ids)
    places: list[int] = []
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
        places += answer
    moved = _behind_media(places, inputs)
    return Example(
        inputs=inputs,
        output_rows=tuple(place - 1 for place in moved),
        targets=tuple(inputs.token_ids[place] for place in moved),
        record=record,
    )


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
