"""A record: one conversation to learn from and where it comes from, in memory and as a line of JSON."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from phi4.data.media_files import load_medium, store_medium
from phi4.errors import DataError, InputError
from phi4.files import new_file
from phi4.processing.messages import Image, Message, Part, Signal, Sound, read_messages
from phi4.processing.tools import format_tool_calls

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

FIELDS = ("id", "source", "licence", "split", "task", "messages")
# Written where a record has it.
REJECTED = "rejected"


@dataclass(frozen=True, eq=False)
class Record:
    """One conversation to learn from, or to be measured on.

    Attributes:
        id: names it in its data set, where no other has the same.
        messages: they end with the assistant's answer. The source of a medium is the content of its file; augmentation
            may put a decoded picture or sound in its place.
        source: where it was taken from.
        licence: SPDX identifier or short name.
        split: what it may be used for.
        task: what it teaches, in a word.
        rejected: text of another last answer, which is worse; None where nobody compared.
    """

    id: str
    messages: tuple[Message, ...]
    source: str
    licence: str
    split: Split
    task: str
    rejected: str | None = None

    def __post_init__(self) -> None:
        for name in ("id", "source", "licence", "task"):
            if not isinstance(getattr(self, name), str):
                raise DataError(f"record {self.id!r}: {name} must be text, not {getattr(self, name)!r}")
        for name in ("id", "source", "licence"):
            if not getattr(self, name):
                raise DataError(f"record {self.id!r} from {self.source!r} has an empty {name}; every record needs one")
        if self.split not in SPLITS:
            raise DataError(f"record {self.id!r}: split is {self.split!r}; it must be one of {', '.join(SPLITS)}")
        self._check_messages()
        self._check_rejected()
        self._check_text()

    def _check_messages(self) -> None:
        roles = [message.role for message in self.messages]
        if "assistant" not in roles:
            raise DataError(f"record {self.id!r} has no assistant message, so there is nothing to learn from it")
        if roles[-1] != "assistant":
            raise DataError(f"record {self.id!r} ends with a {roles[-1]} message; the last one must be the assistant's")
        if roles[0] == "assistant":
            raise DataError(f"record {self.id!r} begins with an answer; put what it answers before it")
        for message in self.messages:
            if message.role == "assistant" and not all(isinstance(part, str) for part in message.parts):
                raise DataError(f"record {self.id!r} has a medium in an answer; answers are text")

    def _check_rejected(self) -> None:
        if self.rejected is None:
            return
        if not isinstance(self.rejected, str):
            raise DataError(f"record {self.id!r}: rejected must be the text of an answer, not {self.rejected!r}")
        if self.rejected == self.answer:
            raise DataError(f"record {self.id!r}: the rejected answer is the chosen one; leave the record out")

    def _check_text(self) -> None:
        parts = [part if isinstance(part, str) else part.modality for m in self.messages for part in m.parts]
        parts += [text for m in self.messages for text in (m.tools or "", format_tool_calls(m.tool_calls))]
        try:
            "".join([self.id, self.source, self.licence, self.task, self.rejected or "", *parts]).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"record {self.id!r} holds text that is not valid Unicode: {error.reason}") from error

    @property
    def answer(self) -> str:
        """The text of the last answer."""
        return "".join(part for part in self.messages[-1].parts if isinstance(part, str))


def read_records(path: Path) -> Iterator[Record]:
    """Reads a file with one record on each line, and the media that it names.

    Args:
        path: JSON lines; media are files in its folder or below.

    Raises:
        DataError: the file or a medium is missing or damaged, a line is not a record, two have the same id, or a
            medium lies outside the folder.
    """
    try:
        with path.open("rb") as file:
            yield from distinct(read_record(line, path, number) for number, line in enumerate(file, start=1))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def read_record(line: bytes, path: Path, number: int) -> Record:
    """Reads one line of a file of records, and the media that it names.

    Args:
        line: JSON.
        path: of the file; media are in its folder or below.
        number: of the line, for messages.

    Raises:
        DataError: the line is no record, or a medium is missing, damaged or outside the folder.
    """
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number} is not valid JSON: {error}") from error
    if not isinstance(raw, dict) or set(raw) - {REJECTED} != set(FIELDS):
        found = sorted(raw) if isinstance(raw, dict) else f"a {type(raw).__name__}"
        raise DataError(
            f"{path}, line {number} has the fields {found}; a record has {', '.join(FIELDS)}, and {REJECTED} if it is "
            "a preference"
        )
    try:
        messages = messages_from_json(raw["messages"], lambda reference: load_medium(path.parent, reference))
        return Record(**{**raw, "messages": messages})
    except (DataError, InputError) as error:
        raise DataError(f"{path}, line {number}: {error}") from error


def write_records(path: Path, records: Iterable[Record]) -> int:
    """Writes records as JSON lines, and their media beside them under `media/`, named by SHA-256.

    The file appears when it is complete. Equal media are stored once; those that were written before an error stay.

    Args:
        path: the file to write; its folder is created.
        records: at least their ids differ.

    Returns:
        How many records were written.

    Raises:
        DataError: two records have the same id, or a medium is not the content of a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with new_file(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        for record in distinct(records):
            file.write(to_json(_fields(record, lambda content: store_medium(path.parent, content))) + "\n")
            count += 1
    return count


def distinct(records: Iterable[Record]) -> Iterator[Record]:
    """Hands records on, and stops at the first whose id was there before.

    Raises:
        DataError: two records have the same id.
    """
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise DataError(f"two records have the id {record.id!r} (source {record.source!r}); ids must differ")
        seen.add(record.id)
        yield record


def messages_to_json(record: Record, store: Callable[[bytes], Any]) -> list[dict[str, Any]]:
    """Turns the messages of a record into what `read_messages` reads.

    Args:
        record: whose media are contents of files.
        store: keeps a medium and returns what will stand in its place.

    Raises:
        DataError: a medium is not the content of a file.
    """
    return [_message_to_json(message, record, store) for message in record.messages]


def messages_from_json(raw: Any, load: Callable[[Any], bytes]) -> tuple[Message, ...]:
    """Reads messages whose media are references.

    Args:
        raw: what `messages_to_json` returned.
        load: returns the medium behind a reference.

    Raises:
        InputError: it is no list of messages.
        DataError: whatever `load` raises.
    """
    messages = read_messages(raw)
    return tuple(_load_media(message, load) for message in messages)


def to_json(value: Any) -> str:
    """One line of JSON, the same for the same value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _fields(record: Record, store: Callable[[bytes], Any]) -> dict[str, Any]:
    return {
        **{name: getattr(record, name) for name in FIELDS if name != "messages"},
        "messages": messages_to_json(record, store),
        **({} if record.rejected is None else {REJECTED: record.rejected}),
    }


def _message_to_json(message: Message, record: Record, store: Callable[[bytes], Any]) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "role": message.role,
        "content": [_part_to_json(part, record, store) for part in message.parts],
    }
    if message.tools is not None:
        raw["tools"] = message.tools
    if message.tool_calls:
        raw["tool_calls"] = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    return raw


def _part_to_json(part: Part, record: Record, store: Callable[[bytes], Any]) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part.source, bytes):
        raise DataError(
            f"record {record.id!r} has a medium for {part.modality} as {type(part.source).__name__}; "
            "only contents of files, as bytes, are written"
        )
    match part:
        case Image():
            return {"type": "image", "image": store(part.source)}
        case Sound():
            return {"type": "audio", "audio": store(part.source)}
        case Signal():
            return {"type": "signal", "modality": part.modality, "signal": store(part.source)}


def _load_media(message: Message, load: Callable[[Any], bytes]) -> Message:
    parts = (part if isinstance(part, str) else replace(part, source=load(part.source)) for part in message.parts)
    return replace(message, content=tuple(parts))
