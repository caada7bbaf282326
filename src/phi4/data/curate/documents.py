"""Documents on their way through curation: how texts and conversations become documents, and those records again."""

import hashlib
import json
from typing import Any

from datatrove.data import Document, Media, MediaType

from phi4.data.record import REJECTED, Record, messages_from_json, messages_to_json, to_json
from phi4.processing.messages import Message

# Of a document's metadata, the conversation that its text and media were taken from. A text alone has none.
MESSAGES = "messages"
PROVENANCE = ("collection", "source", "licence", "split", "task")


def record_document(record: Record) -> Document:
    """A record as a document: its texts, line by line, its media, and the conversation in the metadata."""
    media: list[Media] = []

    def store(content: bytes) -> int:
        media.append(Media(str(len(media)), MediaType.DOCUMENT, "", media_bytes=content))
        return len(media) - 1

    messages = messages_to_json(record, store)
    for part in _parts(messages):
        if part["type"] in _MEDIA_TYPES:
            media[part[part["type"]]].type = _MEDIA_TYPES[part["type"]]
    document = Document("", record.id, media)
    set_messages(document, messages)
    document.metadata |= {name: getattr(record, name) for name in PROVENANCE if name != "collection"}
    if record.rejected is not None:
        document.metadata[REJECTED] = record.rejected
    return document


def set_messages(document: Document, messages: list[dict[str, Any]]) -> None:
    """Gives a document another conversation, as JSON in which media are numbers; its text follows."""
    document.metadata[MESSAGES] = to_json(messages)
    document.text = "\n".join(part["text"] for part in _parts(messages) if part["type"] == "text")


def edit_texts(document: Document, edit: Any) -> bool:
    """Changes the text, or each text of the conversation, and returns whether it is another one now."""
    before = document.text
    if MESSAGES not in document.metadata:
        document.text = edit(before)
        return bool(document.text != before)
    messages = json.loads(document.metadata[MESSAGES])
    for part in _parts(messages):
        if part["type"] == "text":
            part["text"] = edit(part["text"])
    set_messages(document, messages)
    rejected = document.metadata.get(REJECTED)
    if rejected is None:
        return document.text != before
    document.metadata[REJECTED] = edit(rejected)
    return document.text != before or document.metadata[REJECTED] != rejected


def answer(document: Document) -> str:
    """The last answer of a conversation, such as a caption or a transcript; of a text alone, the text."""
    if MESSAGES not in document.metadata:
        return str(document.text)
    last = json.loads(document.metadata[MESSAGES])[-1]
    return "".join(part["text"] for part in last["content"] if part["type"] == "text")


def pictures(document: Document) -> list[bytes]:
    """The files of its pictures."""
    return [medium.media_bytes for medium in document.media if medium.type == MediaType.IMAGE]


def sounds(document: Document) -> list[bytes]:
    """The files of its sounds."""
    return [medium.media_bytes for medium in document.media if medium.type == MediaType.AUDIO]


def num_bytes(document: Document) -> int:
    """Text and media."""
    return len(document.text.encode(errors="surrogatepass")) + sum(len(item.media_bytes) for item in document.media)


def document_record(document: Document) -> Record:
    """A document as a record. A text alone becomes the answer to an empty question.

    Raises:
        DataError: the document lacks what a record needs, or its text is no valid Unicode.
    """
    metadata = document.metadata
    if MESSAGES in metadata:
        messages = messages_from_json(json.loads(metadata[MESSAGES]), lambda number: document.media[number].media_bytes)
    else:
        messages = (Message("user", ""), Message("assistant", document.text))
    return Record(
        id=document.id,
        messages=messages,
        rejected=metadata.get(REJECTED),
        **{name: metadata[name] for name in PROVENANCE if name != "collection"},
    )


def content_digest(document: Document) -> str:
    """Equal for equal texts, media and rejected answers."""
    digest = hashlib.sha256(document.text.encode(errors="surrogatepass"))
    for medium in document.media:
        digest.update(hashlib.sha256(medium.media_bytes).digest())
    if REJECTED in document.metadata:
        digest.update(hashlib.sha256(document.metadata[REJECTED].encode(errors="surrogatepass")).digest())
    return digest.hexdigest()


_MEDIA_TYPES = {"image": MediaType.IMAGE, "audio": MediaType.AUDIO}


def _parts(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for message in messages for part in message["content"]]
