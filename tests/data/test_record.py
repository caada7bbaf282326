"""Records: what they must hold, and files that are read back exactly or refused by name."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.samples import contents, media_record, png, record, wav
from phi4.data.media_files import file_ending, load_medium
from phi4.data.record import Record, read_records, write_records
from phi4.errors import DataError
from phi4.processing.messages import Image, Message, Signal, Sound
from phi4.processing.tools import ToolCall

LINE: dict[str, Any] = {
    "id": "a",
    "source": "made up",
    "licence": "CC0-1.0",
    "split": "train",
    "task": "chat",
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
}


def write_lines(path: Path, *lines: Any) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def question(part: Any) -> list[Any]:
    return [{"role": "user", "content": [part]}, {"role": "assistant", "content": "Hello"}]


def test_records_are_read_as_they_were_written(tmp_path: Path) -> None:
    call = ToolCall("get_weather", {"city": "Köln", "days": [1, 2.5, None]})
    records = [
        media_record(0, split="valid"),
        media_record(1, split="test", task=""),
        record("é \u2028 🙂", Message("user", ("a", "\n", 'b"')), Message("assistant", "")),
        record(
            "tools", Message("system", "", tools="[]"), Message("user", "?"), Message("assistant", "", None, (call,))
        ),
        record(
            "signal", Message("user", (Signal("smell", b"\x00\xff"), Image(png(0)))), Message("assistant", "Roses.")
        ),
    ]
    assert write_records(tmp_path / "new/records.jsonl", records) == len(records)
    again = read_records(tmp_path / "new/records.jsonl")
    assert [contents(item) for item in again] == [contents(item) for item in records]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4), st.text(min_size=1))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str], name: str) -> None:
    path = tmp_path_factory.mktemp("records") / "records.jsonl"
    name = name.encode("utf-8", "replace").decode()
    original = record(name, Message("user", tuple(texts)), Message("assistant", texts[0]))
    write_records(path, [original])
    assert [contents(item) for item in read_records(path)] == [contents(original)]


def test_a_rejected_answer_is_written_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [record("a", rejected="It is b."), record("b")])
    assert [item.rejected for item in read_records(path)] == ["It is b.", None]
    assert ["rejected" in line for line in path.read_text().splitlines()] == [True, False]


def test_media_are_stored_once_under_their_digest(tmp_path: Path) -> None:
    picture, sound = png(0), wav(0)
    messages = (Message("user", (Image(picture), Image(picture), Sound(sound))), Message("assistant", "Two."))
    write_records(tmp_path / "records.jsonl", [record("a", *messages), record("b", *messages)])
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    digests = [(hashlib.sha256(content).hexdigest(), ending) for content, ending in ((picture, "png"), (sound, "wav"))]
    assert names == sorted([f"media/{digest[:2]}/{digest}.{ending}" for digest, ending in digests] + ["records.jsonl"])


@pytest.mark.parametrize(
    ("beginning", "ending"),
    [
        (b"\xff\xd8\xff\xe0", "jpg"),
        (b"RIFF\n\n\n\nWEBP", "webp"),
        (b"RIFF\n\n\n\nWAVE", "wav"),
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"ID3", "mp3"),
        (b"\xff\xfb\x90", "mp3"),
        (b"RIFF", "bin"),
        (b"", "bin"),
    ],
)
def test_a_file_is_known_by_how_it_begins(beginning: bytes, ending: str) -> None:
    assert file_ending(beginning) == ending


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": ""}, "empty id"),
        ({"source": ""}, "empty source"),
        ({"licence": ""}, "empty licence"),
        ({"licence": None}, "licence must be text, not None"),
        ({"task": 3}, "task must be text, not 3"),
        ({"split": "dev"}, "split is 'dev'; it must be one of train, valid, test"),
        ({"messages": ()}, "no assistant message"),
        ({"messages": (Message("user", "Hi"),)}, "no assistant message"),
        ({"messages": (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))}, "ends with a user"),
        ({"messages": (Message("assistant", "b"),)}, "begins with an answer"),
        ({"messages": (Message("user", "a"), Message("assistant", (Image(b""),)))}, "a medium in an answer"),
        ({"rejected": 3}, "rejected must be the text of an answer, not 3"),
        ({"rejected": "It is a."}, "the rejected answer is the chosen one"),
        ({"rejected": "\ud800"}, "not valid Unicode"),
        ({"messages": (Message("user", "\ud800"), Message("assistant", "b"))}, "not valid Unicode"),
        (
            {
                "messages": (
                    Message("user", "a"),
                    Message("assistant", "", tool_calls=(ToolCall("f", {"q": "\ud83d"}),)),
                )
            },
            "not valid Unicode",
        ),
    ],
)
def test_a_record_without_what_it_needs_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Record(**{**vars(record("a")), **fields})


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 100_000, "line 2 is not valid JSON"),
        ("{", "line 2 is not valid JSON"),
        ("", "line 2 is not valid JSON"),
        ("[]", "line 2 has the fields a list"),
        (
            json.dumps({**LINE, "license": "MIT"}),
            "line 2 has the fields .*'license'.*; a record has id, source, licence",
        ),
        (json.dumps({**LINE, "id": 3}), "line 2: record 3: id must be text"),
        (json.dumps({**LINE, "messages": "Hi"}), "line 2: a conversation must be a list"),
        (json.dumps({**LINE, "messages": [{"role": "user", "content": "Hi"}]}), "line 2: .*no assistant message"),
        (json.dumps({**LINE, "messages": question({"type": "video", "video": "v"})}), "line 2: message 1 .*'video'"),
        (json.dumps({**LINE, "messages": question({"type": "image", "image": 3})}), "path of a file, not a int"),
        (json.dumps({**LINE, "messages": question({"type": "image", "image": "no.png"})}), "'no.png' cannot be read"),
        (json.dumps({**LINE, "messages": question({"type": "image", "image": "\0"})}), "cannot be read"),
        (json.dumps({**LINE, "messages": question({"type": "image", "image": "."})}), "'.' cannot be read"),
        (json.dumps(LINE), "two records have the id 'a'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + line + "\n")
    with pytest.raises(DataError, match=said):
        list(read_records(path))


def test_what_is_not_unicode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(json.dumps(LINE).encode().replace(b"Hello", b"\xff"))
    with pytest.raises(DataError, match="line 1 is not valid JSON"):
        list(read_records(path))
    with pytest.raises(DataError, match=r"none\.jsonl cannot be read"):
        list(read_records(tmp_path / "none.jsonl"))


@pytest.mark.parametrize("reference", ["../secret.png", "/etc/hostname", "link/secret.png", "media/../../secret.png"])
def test_media_outside_the_folder_are_never_read(tmp_path: Path, reference: str) -> None:
    (tmp_path / "secret.png").write_bytes(png(0))
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/link").symlink_to(tmp_path)
    line = {**LINE, "messages": question({"type": "image", "image": reference})}
    with pytest.raises(DataError, match="lies outside"):
        list(read_records(write_lines(tmp_path / "inside/records.jsonl", line)))


def test_a_folder_may_be_reached_through_a_link(tmp_path: Path) -> None:
    write_records(tmp_path / "real/records.jsonl", [media_record(0)])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(list(read_records(tmp_path / "link/records.jsonl"))) == 1


def test_a_flipped_byte_in_a_medium_is_found(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [media_record(0)])
    (sound,) = tmp_path.rglob("*.wav")
    content = bytearray(sound.read_bytes())
    content[-1] ^= 1
    sound.write_bytes(content)
    with pytest.raises(DataError, match=r"line 1: the medium .*\.wav' is damaged"):
        list(read_records(path))


@pytest.mark.parametrize("source", [np.zeros(3), "picture.png", None])
def test_only_contents_of_files_are_written_and_nothing_is_left_behind(tmp_path: Path, source: Any) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [record("before")])
    decoded = record("b", Message("user", (Image(source),)), Message("assistant", "?"))
    with pytest.raises(DataError, match=f"'b' has a medium for vision as {type(source).__name__}"):
        write_records(path, [record("a"), decoded])
    assert [item.id for item in read_records(path)] == ["before"]
    assert list(tmp_path.iterdir()) == [path]


def test_two_records_with_one_id_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two records have the id 'a'"):
        write_records(tmp_path / "records.jsonl", [record("a"), record("b"), record("a")])
    assert not any(tmp_path.iterdir())


def test_the_answer_is_the_last_messages_text() -> None:
    turns = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", ("d", "e")))
    assert record("x", *turns).answer == "de"


def test_a_picture_in_place_of_its_path_is_told_in_short(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: File name too long") as caught:
        load_medium(tmp_path, "data:image/png;base64," + "A" * 100_000)
    assert len(str(caught.value)) < 300
