"""Readers hand on every document, refuse what is broken with the reason, and stay within bounds."""

import gzip
import io
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from data.curate.recipes import PROSE
from data.samples import media_record, png, record
from phi4.data.curate.documents import document_record, pictures, sounds
from phi4.data.curate.read import Refused
from phi4.data.curate.readers import JsonLines, Parquet, PlainText, Reader, Records, Warc
from phi4.data.record import write_records


def read(reader: Reader, path: Path, content: bytes | None = None) -> list[tuple[str, str]]:
    """Places with texts, or with reasons in angle brackets."""
    if content is not None:
        path.write_bytes(content)
    return [
        (item.place, f"<{item.reason}>") if isinstance(item, Refused) else (item.id, item.text)
        for item in reader.read(path)
    ]


def test_bad_lines_of_json_are_refused_and_the_others_read(tmp_path: Path) -> None:
    lines = [b'{"text": "good"}', b"{", b'["text"]', b'{"text": 3}', b"[" * 100_000, b"", b'{"text": "last"}']
    assert read(JsonLines(), tmp_path / "a.jsonl", b"\n".join(lines)) == [
        ("1", "good"),
        ("2", "<not valid JSON>"),
        ("3", "<no text in the field text>"),
        ("4", "<no text in the field text>"),
        ("5", "<not valid JSON>"),
        ("6", "<not valid JSON>"),
        ("7", "last"),
    ]


def test_mixed_encodings_are_read_and_noted(tmp_path: Path) -> None:
    german = "Die Brücke über den Fluß führt zum Schloß der Königin, wo die Vögel schöne Lieder hören läßt."
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + german.encode() + b"\n" + german.encode("latin-1") + b"\n\x00\xff\x00\xfe\n")
    first, second, third = PlainText("line").read(path)
    assert not isinstance(first, Refused)
    assert (first.text, first.metadata) == (german, {})
    assert not isinstance(second, Refused)
    assert second.text == german
    assert second.metadata["encoding"] != "utf-8"
    assert isinstance(third, Refused)
    assert third.reason == "bytes that are no text"


def test_what_stood_before_the_break_of_an_archive_is_read(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(json.dumps({"text": f"{k} {PROSE[k % 6]}"}).encode() + b"\n" for k in range(5000)))
    found = read(JsonLines(), tmp_path / "a.jsonl.gz", whole[: len(whole) // 2])
    assert len(found) > 1000
    assert found[-1][1] == "<broken archive>"
    assert read(JsonLines(), tmp_path / "b.jsonl.gz", b"no archive") == [("1", "<broken archive>")]


@pytest.mark.parametrize("reader", [JsonLines(), PlainText(), PlainText("paragraph"), Records()])
def test_a_line_of_500_megabytes_takes_little_memory(reader: Reader, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.truncate(500 * 10**6)
    with path.open("ab") as file:
        file.write(b"\nbehind it\n")
    tracemalloc.start()
    found = read(reader, path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "longer than 16 MiB" in found[0][1]
    assert peak < 100 * 2**20


def test_long_rows_of_parquet_are_refused_one_by_one(tmp_path: Path) -> None:
    """What is in memory is Arrow's: a row at a time."""
    path, long = tmp_path / "a.parquet", "x" * 16 * 2**20
    table = pa.table({"text": [*(f"{number}{long}" for number in range(8)), "short"]})
    pa.parquet.write_table(table, path, compression="zstd", write_batch_size=1)
    del table
    before = pa.total_allocated_bytes()
    reading = Parquet().read(path)
    for _ in range(8):
        refused = next(reading)
        assert isinstance(refused, Refused)
        assert refused.reason == "a text longer than 16 MiB"
        assert pa.total_allocated_bytes() - before < 100 * 2**20
    last = next(reading)
    assert not isinstance(last, Refused)
    assert (last.id, last.text) == ("9", "short")


def test_a_paragraph_that_never_ends_takes_little_memory(tmp_path: Path) -> None:
    content = (b"x" * 2**20 + b"\n") * 17 + b"\nthe next one\n"
    assert read(PlainText("paragraph"), tmp_path / "a.txt", content) == [
        ("1", "<a paragraph longer than 16 MiB>"),
        ("19", "the next one"),
    ]


def test_text_is_cut_into_files_paragraphs_or_lines(tmp_path: Path) -> None:
    path, content = tmp_path / "a.txt", b"one\ntwo\n\n\nthree\n"
    assert read(PlainText(), path, content) == [("1", "one\ntwo\n\n\nthree\n")]
    assert read(PlainText("paragraph"), path) == [("1", "one\ntwo"), ("5", "three")]
    assert read(PlainText("line"), path) == [("1", "one"), ("2", "two"), ("5", "three")]


def test_empty_files_are_refused(tmp_path: Path) -> None:
    for reader in (JsonLines(), PlainText(), PlainText("line"), Records()):
        assert read(reader, tmp_path / "a", b"") == [("0", "<an empty file>")]
    assert read(Parquet(), tmp_path / "a") == [("1", "<broken Parquet file>")]
    pa.parquet.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "b.parquet")
    assert list(Parquet().read(tmp_path / "b.parquet")) == [Refused("0", "an empty file")]
    (tmp_path / "b.warc.gz").write_bytes(b"")
    assert list(Warc().read(tmp_path / "b.warc.gz")) == [Refused("0", "an archive without pages")]


def test_parquet_rows_keep_their_licence(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pa.parquet.write_table(pa.table({"body": ["one", None], "licence": ["MIT", None], "other": [1, 2]}), path)
    first, second = Parquet(text="body").read(path)
    assert not isinstance(first, Refused)
    assert (first.id, first.text, first.metadata) == ("1", "one", {"licence": "MIT"})
    assert isinstance(second, Refused)
    path.write_bytes(path.read_bytes()[:-20])
    assert read(Parquet(text="body"), path) == [("1", "<broken Parquet file>")]


def warc(pages: list[tuple[str, bytes]], packed: bool = True) -> bytes:
    file = io.BytesIO()
    writer = WARCWriter(file, gzip=packed)
    for number, (kind, content) in enumerate(pages):
        headers = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.0")
        page = writer.create_warc_record(
            f"https://example.org/{number}", "response", payload=io.BytesIO(content), http_headers=headers
        )
        writer.write_record(page)
        page.raw_stream.close()
    return file.getvalue()


def test_web_archives_give_the_text_of_their_pages(tmp_path: Path) -> None:
    html = f"<html><body><nav>Home</nav><article><p>{PROSE[0]}</p><p>{PROSE[1]}</p></article></body></html>"
    content = warc([("text/html", html.encode()), ("image/png", png(0)), ("text/plain", b"plain"), ("text/html", b"")])
    path = tmp_path / "a.warc.gz"
    assert read(Warc(), path, content) == [
        ("1", f"{PROSE[0]}\n{PROSE[1]}"),
        ("2", "<bytes that are no text>"),
        ("3", "plain"),
        ("4", "<a page without text>"),
    ]
    page = next(Warc().read(path))
    assert not isinstance(page, Refused)
    assert page.metadata["source"] == "https://example.org/0"


def test_a_page_that_takes_too_long_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    slow = f"<html><body>{f'<p>{PROSE[2]}</p>' * 120_000}</body></html>"
    good = f"<html><body><article><p>{PROSE[0]}</p><p>{PROSE[1]}</p></article></body></html>"
    content = warc([("text/html", page.encode()) for page in (slow, good)])
    assert read(Warc(max_page_s=2.0), tmp_path / "a.warc.gz", content) == [
        ("1", "<a page whose text takes too long>"),
        ("2", f"{PROSE[0]}\n{PROSE[1]}"),
    ]


def test_a_page_that_kills_what_reads_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trafilatura.py").write_text(
        "import os\ndef extract(page, **_): return 'one' in page and os._exit(1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pages = warc([("text/html", b"<p>one</p>"), ("text/plain", b"two")])
    reason = "<a page whose text cannot be had>"
    assert read(Warc(), tmp_path / "a.warc.gz", pages) == [("1", reason), ("2", "two")]


@pytest.mark.parametrize("packed", [True, False])
def test_a_web_archive_that_is_cut_short_is_noticed(packed: bool, tmp_path: Path) -> None:
    content = warc([("text/plain", PROSE[0].encode()), ("text/plain", PROSE[1].encode())], packed)
    path = tmp_path / ("a.warc.gz" if packed else "a.warc")
    assert read(Warc(), path, content[:-40]) == [("1", PROSE[0]), ("end" if packed else "2", "<broken archive>")]
    assert read(Warc(), path, content) == [("1", PROSE[0]), ("2", PROSE[1])]


def test_records_go_through_with_their_media_and_bad_ones_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    write_records(path, [media_record(1), record("plain"), media_record(2)])
    lines = path.read_text().splitlines()
    lines[1] = lines[1].replace("CC0-1.0", "")
    empty = json.loads(lines[2])["messages"][0]["content"][0]["image"]
    (tmp_path / "media/empty.png").touch()
    lines[2] = lines[2].replace(empty, "media/empty.png")
    path.write_text("\n".join(lines))
    whole, unlicensed, hollow = Records().read(path)
    assert not isinstance(whole, Refused)
    assert (len(pictures(whole)), len(sounds(whole))) == (1, 1)
    whole.metadata["collection"] = "here"
    again = document_record(whole)
    assert [part.source for part in again.messages[0].media] == [
        part.source for part in media_record(1).messages[0].media
    ]
    assert isinstance(unlicensed, Refused)
    assert unlicensed.reason == "no licence"
    assert isinstance(hollow, Refused)
    assert hollow.reason == "a medium of zero bytes"


# Lines of many lengths, empty ones and one that is longer than many parts.
TEXTS = [*(f"{k} " + PROSE[k % 6] * (k % 7) for k in range(200)), "x" * 20_000, "", "", *(f"{k}" for k in range(300))]


@pytest.mark.parametrize("part_bytes", [1, 999, 4096, 2**20])
@pytest.mark.parametrize("reader", [JsonLines(), PlainText("line"), PlainText("paragraph"), PlainText(), Parquet()])
def test_the_parts_of_a_file_hold_its_documents_once_each(
    reader: Reader, part_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("lines", "readers"):
        monkeypatch.setattr(f"phi4.data.curate.{module}.PART_BYTES", part_bytes)
    path = tmp_path / "a"
    if isinstance(reader, Parquet):
        pa.parquet.write_table(pa.table({"text": TEXTS}), path, row_group_size=50)
    elif isinstance(reader, JsonLines):
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    else:
        path.write_bytes("\r\n".join(f"{text}\n" if len(text) % 5 else text for text in TEXTS).encode())
    parts = reader.parts(path)
    whole = read(reader, path)
    found = [
        (item.place if isinstance(item, Refused) else item.id, item.text)
        for part in parts
        for item in reader.read(path, part)
        if not isinstance(item, Refused)
    ]
    if parts:
        assert [text for _, text in found] == [text for _, text in whole]
        assert len({place for place, _ in found}) == len(found)
    assert bool(parts) == (part_bytes < 2**20 and reader != PlainText())


def test_a_file_that_may_not_be_read_is_refused_however_long_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.jsonl"
    path.write_text("{}\n{}\n")
    monkeypatch.setattr("phi4.data.curate.lines.PART_BYTES", 1)
    monkeypatch.setattr(Path, "open", refuse)
    for reader in (JsonLines(), PlainText(), PlainText("paragraph"), Records()):
        assert reader.parts(path) == ()
        assert read(reader, path) == [("1", "<cannot be read>")]


def test_the_place_of_a_document_in_a_part_is_the_byte_that_it_begins_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi4.data.curate.lines.PART_BYTES", 100)
    path = tmp_path / "a.txt"
    path.write_text("".join(f"{text}\n" for text in PROSE * 5))
    for part in PlainText("line").parts(path):
        for line in PlainText("line").read(path, part):
            assert not isinstance(line, Refused)
            assert path.read_bytes()[int(line.id.removeprefix("@")) :].startswith(f"{line.text}\n".encode())
