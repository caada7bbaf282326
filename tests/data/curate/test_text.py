"""Steps for text find what they are for, and let the rest through."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from datatrove.data import Document
from datatrove.utils.word_tokenizers import SpaCyTokenizer

from data.curate.recipes import PROSE
from data.samples import record
from phi4.data.curate import text, words
from phi4.data.curate.decontaminate import decontaminate
from phi4.data.curate.documents import document_record, edit_texts, record_document
from phi4.data.curate.quality import Labelled, learn_quality, quality, read_labelled
from phi4.errors import CheckpointError, ConfigError, DataError
from phi4.processing.messages import Message


def test_each_text_of_a_conversation_is_edited_where_it_stands() -> None:
    question = Message("user", "Who is donâ€™t@example.org?")
    document = record_document(
        record("a", question, Message("assistant", "It is keeper@lighthouse.org, I donâ€™t know."))
    )
    assert edit_texts(document, text.repair().text)
    assert edit_texts(document, text.mask_private().text)
    assert document_record(document).answer == "It is email@example.com, I don’t know."


def test_public_addresses_are_masked_and_others_kept() -> None:
    mask = text.mask_private().text
    assert mask("8.8.4.4 and 192.168.0.1") == "192.0.2.1 and 192.168.0.1"
    assert mask("version 1.2.3 at noon") == "version 1.2.3 at noon"


@pytest.mark.parametrize("unit", ["a.", "x-", "ab+/", "1="])
def test_long_runs_without_spaces_take_no_longer_than_other_text(unit: str) -> None:
    """Two million letters: by datatrove's pattern alone this would take hours."""
    mask, run = text.mask_private().text, unit * (2_000_000 // len(unit))
    assert mask(f"{run} keeper@lighthouse.org") == f"{run} email@example.com"
    behind = mask(f"keeper@lighthouse.org {run}keeper@lighthouse.org.")
    assert behind.startswith(f"email@example.com {run[:1_000_000]}")
    assert "lighthouse" not in behind


def test_languages_are_told_apart_without_a_network() -> None:
    english = text.language("en")
    assert english.reason(Document(PROSE[0], "a")) is None
    assert english.reason(Document("C'est une phrase française que personne ne lit.\nUne autre.", "b")) == "language fr"
    assert english.reason(Document("  \n ", "c")) == "no language"
    caption = record_document(record("d", Message("user", PROSE[1]), Message("assistant", "Das Haus am Meer ist alt.")))
    assert text.answer_language("en").reason(caption) == "language de"


@pytest.mark.parametrize(
    ("step", "bad", "reason"),
    [
        (text.gopher_quality(), "too short", "gopher short doc"),
        (text.gopher_repetition(), "again and again\n" * 20, "dup para frac|dup line frac"),
        (text.fineweb_quality(), "a line\nanother line\nthird line\n" * 3, "line punct ratio"),
        (text.c4_quality(), "lorem ipsum dolor sit amet, and so it goes on.", "lorem ipsum"),
    ],
)
def test_published_heuristics_say_why(step: text.Filter, bad: str, reason: str) -> None:
    assert step.reason(Document(bad, "a")) in reason.split("|")
    assert step.reason(Document(" ".join(PROSE) + "\n", "b")) is None


def test_a_heuristic_that_drops_lines_leaves_conversations_alone() -> None:
    page = "\n".join([*PROSE, "Home | Log in"])
    step = text.c4_quality()
    alone, spoken = (
        Document(page, "a"),
        record_document(record("b", Message("user", page), Message("assistant", "Yes."))),
    )
    assert step.reason(alone) is None
    assert alone.text == "\n".join(PROSE)
    assert step.reason(spoken) is None
    assert "Log in" in spoken.text


def test_shared_runs_of_words_are_found_whatever_the_punctuation(tmp_path: Path) -> None:
    questions = tmp_path / "test.jsonl"
    short = "How many stones are there in all bridges?"
    questions.write_text(
        "".join(json.dumps({"id": 1, "turns": [{"q": q}], "answer": "Yes."}) + "\n" for q in (PROSE[0], short))
    )
    step = decontaminate({"bridges": questions})
    leak = "As they say: the LIGHTHOUSE stood, on a rock - that the sea covered twice a day (and its keeper!)."
    assert step.reason(Document(leak, "a")) == "shares a run of words with bridges"
    assert step.reason(Document(f"He asked: {short} Nobody knew.", "b")) == "shares a run of words with bridges"
    assert step.reason(Document("The lighthouse stood on a rock that the sea never covered. Yes.", "c")) is None


@pytest.mark.parametrize("name", ["a.parquet", "a.json", "lines.json", "a.jsonl.gz", "a.csv"])
def test_an_evaluation_set_is_read_in_the_layouts_that_are_evaluated(name: str, tmp_path: Path) -> None:
    path, row = tmp_path / name, {"question": PROSE[0], "choices": {"text": ["Yes.", PROSE[1]]}}
    if name == "a.parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "image": {"bytes": b"\xff"}}]), path)
    elif name == "a.json":
        path.write_text(json.dumps({"data": [row]}, indent=2))
    elif name == "a.csv":
        path.write_text(f'question,choice\n"{PROSE[0]}","{PROSE[1]}"\n')
    else:
        content = f"{json.dumps(row)}\n{json.dumps(row)}\n".encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    step = decontaminate({"bridges": path})
    assert step.reason(Document(PROSE[0], "a")) == step.reason(Document(PROSE[1], "b")) is not None
    assert step.reason(Document(PROSE[2], "c")) is None


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.json", b"[" * 100_000), ("a.jsonl", b"{"), ("a.parquet", b"PAR1"), ("a.jsonl.gz", b"no"), ("a.txt", b"\xff")],
)
def test_an_evaluation_set_that_is_broken_is_named(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"evaluation set .*{name} cannot be read"):
        decontaminate({"broken": tmp_path / name})


@pytest.mark.parametrize(("name", "between"), [("a.csv", ","), ("a.tsv", "\t")])
def test_a_short_question_in_a_table_is_found_by_itself(name: str, between: str, tmp_path: Path) -> None:
    short = "How many stones are there in all bridges?"
    (tmp_path / name).write_text(f"id{between}question\n17{between}{short}\n")
    step = decontaminate({"bridges": tmp_path / name})
    assert step.reason(Document(f"He asked: {short} Nobody knew.", "a")) == "shares a run of words with bridges"


def test_an_evaluation_set_that_adds_nothing_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "test.txt"
    path.write_text("Yes.\nNo.\n")
    with pytest.raises(ConfigError, match="no evaluation set"):
        decontaminate({})
    with pytest.raises(ConfigError, match="adds no text"):
        decontaminate({"short": path})
    with pytest.raises(ConfigError, match="cannot be read"):
        decontaminate({"none": tmp_path / "none.jsonl"})


def labelled(count: int) -> list[Labelled]:
    """Prose that is good, and the same words in disorder, with some of their own, that is not."""
    generator = np.random.default_rng(0)
    words = [sentence.split() for sentence in PROSE]
    good = [" ".join(words[k % 6][: 8 + k % 9]) + f" number {k}" for k in range(count)]
    bad = [
        " ".join(generator.permutation(["click", "buy", "here", *words[k % 6]])[:12]) + f" {k}" for k in range(count)
    ]
    return [*(Labelled(item, True) for item in good), *(Labelled(item, False) for item in bad)]


def test_a_classifier_learns_from_labels_and_says_how_well(tmp_path: Path) -> None:
    path = tmp_path / "quality.safetensors"
    learnt = learn_quality(labelled(120), path)
    assert learnt.held_out + learnt.examples == 240
    assert learnt.auc > 0.9
    first = path.read_bytes()
    learn_quality(labelled(120), path)
    assert path.read_bytes() == first
    step = quality(path)
    assert step.reason(Document(PROSE[2], "a")) is None
    assert step.reason(Document("buy here click here buy the", "b")) == "low quality"


def test_bad_labels_and_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text('{"text": "a", "good": 1}\n')
    with pytest.raises(DataError, match="true or false"):
        list(read_labelled(path))
    for line in (b"\xff\xfe", b"[" * 100_000, b'{"text": "a"}', b"[]"):
        path.write_bytes(b'{"text": "a", "good": true}\n' + line)
        with pytest.raises(DataError, match="line 2 lacks text or good"):
            list(read_labelled(path))
    with pytest.raises(DataError, match="at least 20 of each kind"):
        learn_quality([Labelled(f"text {number}", True) for number in range(100)], tmp_path / "out")
    with pytest.raises(CheckpointError, match="cannot be read"):
        quality(path)


def test_words_that_are_remembered_are_datatroves_words(monkeypatch: pytest.MonkeyPatch) -> None:
    special = ("", "  x  y\n\n z\t", "can't: U.K., e.g. a.b.c :-) http://x.org/a?b=1 IS_TITLE 10km", "naïve 日本")
    expected = [SpaCyTokenizer("en").word_tokenize(text) for text in (*PROSE, *special)]
    monkeypatch.setattr(SpaCyTokenizer, "word_tokenize", SpaCyTokenizer.word_tokenize)
    words.remember_words()
    for most in (words.MAX_WORDS, 1):
        monkeypatch.setattr(words, "MAX_WORDS", most)
        remembering = SpaCyTokenizer("en")
        for _ in range(2):
            assert [remembering.word_tokenize(text) for text in (*PROSE, *special)] == expected


@pytest.mark.parametrize("sign", ["[", "=", "'", "a(b"])
def test_a_long_row_of_signs_takes_no_longer_than_other_text(sign: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """spaCy alone would take minutes for the brackets."""
    monkeypatch.setattr(SpaCyTokenizer, "word_tokenize", SpaCyTokenizer.word_tokenize)
    words.remember_words()
    row = sign * (50_000 // len(sign))
    assert "".join(SpaCyTokenizer("en").word_tokenize(f"{row} and more")) == f"{row}andmore"
    url = f"See https://example.org/{'path/' * 40}?a=b."
    assert SpaCyTokenizer("en").word_tokenize(url)[1] == url.removeprefix("See ").removesuffix(".")


def test_what_edits_texts_edits_the_rejected_answer_too() -> None:
    document = record_document(record("a", rejected="ask A@B.org"))
    assert edit_texts(document, lambda text: text.replace("A@B.org", "x@y.org"))
    assert document_record(document).rejected == "ask x@y.org"
