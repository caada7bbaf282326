"""Tasks with pictures and sounds read the layouts that their data sets have."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from data.samples import png, wav
from phi4.assistant import Assistant
from phi4.errors import DataError
from phi4.eval.ask import ask_items
from phi4.eval.families.pictures import chosen_letter
from phi4.eval.items import RowItems, question_digest
from phi4.eval.metrics import total
from phi4.eval.registry import TASKS
from phi4.eval.task import Item, Reply
from phi4.processing.messages import Image


def parquet_items(name: str, folder: Path, file: str, *rows: Any) -> list[Item]:
    path = folder / name / file
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return items_of(name, folder)


def items_of(name: str, folder: Path) -> list[Item]:
    items = RowItems.open(TASKS[name], folder)
    return list(items.select(range(len(items))))


def embedded(content: bytes) -> dict[str, Any]:
    """A medium as the Hub keeps it in a table."""
    return {"bytes": content, "path": None}


def value(name: str, item: Item, text: str) -> float:
    metric = TASKS[name].metrics[0]
    return total(metric.total, np.array(metric.statistics(item, Reply(texts=(text,)))))


def test_mmmu_puts_pictures_where_they_are_named(tmp_path: Path) -> None:
    row = {
        "id": "validation_Art_1",
        "question": "Is <image 1> like <image 2>?",
        "options": "['yes', 'no']",
        "answer": "B",
        "question_type": "multiple-choice",
        "image_1": embedded(png(1)),
        "image_2": embedded(png(2)),
        "image_3": None,
    }
    open_row = {**row, "id": "validation_Art_2", "options": "[]", "answer": "['1/2', '0.5']"}
    first, second = parquet_items("mmmu", tmp_path, "Art/validation-0.parquet", row, open_row)
    parts = first.messages[0].parts
    assert [type(part) is Image for part in parts] == [False, True, False, True, False]
    assert isinstance(parts[3], Image)
    assert parts[3].source == png(2)
    assert str(parts[4]).startswith("?\nA. yes\nB. no\n\nAnswer with the letter")
    assert value("mmmu", first, "(B) no") == 1.0
    assert value("mmmu", second, "0.5") == 1.0


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(C).", "C"),
        ("The answer is D.", "D"),
        ("A. yes", "A"),
        ("A dog", "a dog"),
        ("It is (B)", "B"),
        ("Answer: B", "B"),
        ("The answer is **B**.", "B"),
        ("The correct answer is: B", "B"),
        ("**Answer:** (C)", "C"),
        ("**D**", "D"),
    ],
)
def test_the_letter_of_an_answer_is_found(text: str, letter: str) -> None:
    assert chosen_letter(text) == letter


def test_chartqa_from_the_hub_and_from_its_authors(tmp_path: Path) -> None:
    row = {"image": embedded(png(1)), "query": "How many?", "label": ["12"], "human_or_machine": 0}
    (item,) = parquet_items("chartqa", tmp_path, "data/test-0.parquet", row)
    assert value("chartqa", item, "12.5") == 1.0
    folder = tmp_path / "authors" / "chartqa"
    (folder / "png").mkdir(parents=True)
    (folder / "png" / "1.png").write_bytes(png(1))
    (folder / "test_human.json").write_text(json.dumps([{"imgname": "1.png", "query": "How many?", "label": "12"}]))
    (other,) = items_of("chartqa", folder.parent)
    assert question_digest(other) == question_digest(item)


def test_docvqa_textvqa_and_ocrbench(tmp_path: Path) -> None:
    image = embedded(png(1))
    page = {"questionId": "7", "question": "Date?", "answers": ["1 May", "May 1"], "image": image}
    (item,) = parquet_items("docvqa", tmp_path, "DocVQA/validation-0.parquet", page)
    assert value("docvqa", item, "1 may") == 1.0
    scene = {"question_id": 8, "question": "Brand?", "answers": ["acme"] * 10, "image": image}
    (item,) = parquet_items("textvqa", tmp_path, "data/validation-0.parquet", scene)
    assert value("textvqa", item, "Acme") == 1.0
    reading = {"dataset": "x", "question": "Read.", "question_type": "y", "answer": ["exit"], "image": image}
    (item,) = parquet_items("ocrbench", tmp_path, "data/test-0.parquet", reading)
    assert value("ocrbench", item, "It says EXIT") == 1.0
    formula = {**reading, "dataset": "HME100k", "answer": ["\\frac { a } { b }"]}
    (item,) = parquet_items("ocrbench", tmp_path / "formula", "data/test-0.parquet", formula)
    assert value("ocrbench", item, "$\\frac{a}{b}$") == 1.0


def test_librispeech_as_it_is_unpacked_and_as_a_table(tmp_path: Path) -> None:
    chapter = tmp_path / "here" / "librispeech_clean" / "LibriSpeech" / "test-clean" / "61" / "70968"
    chapter.mkdir(parents=True)
    samples, rate = soundfile.read(io.BytesIO(wav(1)))
    soundfile.write(chapter / "61-70968-0000.flac", samples, rate)
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN A CONFUSED COMPLAINT\n")
    (item,) = items_of("librispeech_clean", tmp_path / "here")
    assert value("librispeech_clean", item, "He began a complaint.") == pytest.approx(1 / 5)
    row = {"id": "x", "audio": embedded(wav(1)), "text": "HE BEGAN"}
    (item,) = parquet_items("librispeech_clean", tmp_path / "hub", "clean/test/0000.parquet", row)
    assert value("librispeech_clean", item, "he began") == 0.0


def test_tables_with_sounds_beside_them(tmp_path: Path, assistant: Assistant) -> None:
    voice = tmp_path / "commonvoice_de" / "de"
    (voice / "clips").mkdir(parents=True)
    (voice / "clips" / "a.wav").write_bytes(wav(1))
    (voice / "test.tsv").write_text('client_id\tpath\tsentence\nx\ta.wav\tEr sagt "Ja"\n')
    (heard,) = items_of("commonvoice_de", tmp_path)
    assert heard.references == ('Er sagt "Ja"',)
    fleurs = tmp_path / "fleurs_de_de"
    (fleurs / "test").mkdir(parents=True)
    (fleurs / "test" / "1.wav").write_bytes(wav(2))
    (fleurs / "test.tsv").write_text("1\t1.wav\tEins, zwei.\teins zwei\te i n s\t4000\tMALE\n")
    (item,) = items_of("fleurs_de_de", tmp_path)
    assert value("fleurs_de_de", item, "Eins zwei") == 0.0
    covost = tmp_path / "covost_de_en"
    (covost / "clips").mkdir(parents=True)
    (covost / "clips" / "a.wav").write_bytes(wav(1))
    (covost / "covost_v2.de_en.test.tsv").write_text("path\tsentence\ttranslation\na.wav\tJa\tHe says yes to us\n")
    (item,) = items_of("covost_de_en", tmp_path)
    assert str(item.messages[0].parts[-1]) == "Translate the audio to English."
    assert value("covost_de_en", item, "He says yes to us") == pytest.approx(100)
    assert len(list(ask_items(assistant, TASKS["commonvoice_de"].ask, [heard]))) == 1


def test_media_are_read_from_the_folder_of_the_data_only(tmp_path: Path) -> None:
    folder = tmp_path / "commonvoice_en"
    folder.mkdir()
    (tmp_path / "secret.wav").write_bytes(wav(1))
    for path, message in (("../secret.wav", "lies outside"), ("none.wav", r"no file none.wav or clips/none.wav")):
        (folder / "test.tsv").write_text(f"path\tsentence\n{path}\tYes\n")
        with pytest.raises(DataError, match=message):
            items_of("commonvoice_en", tmp_path)


@pytest.mark.parametrize("content", [b"no picture", b"\x89PNG\r\n\x1a\n", b"RIFF"])
def test_a_medium_that_cannot_be_opened_names_its_item(content: bytes, tmp_path: Path, assistant: Assistant) -> None:
    picture = {"image": embedded(content), "query": "How many?", "label": ["12"]}
    sound = {"id": "x", "audio": embedded(content), "text": "HE BEGAN"}
    for name, file, row in (("chartqa", "data/test-0", picture), ("librispeech_clean", "clean/test/0", sound)):
        items = parquet_items(name, tmp_path, f"{file}.parquet", row)
        with pytest.raises(DataError, match=r"item '.*1' cannot be answered"):
            list(ask_items(assistant, TASKS[name].ask, items))


@pytest.mark.parametrize("value", [{"bytes": b"", "path": None}, {"bytes": None, "path": "gone.png"}, b"", 3])
def test_a_medium_that_is_not_there_names_its_row(value: Any, tmp_path: Path, assistant: Assistant) -> None:
    """Of no bytes, with a path that leads nowhere, or no medium at all."""
    row = {"image": value, "query": "x", "label": ["1"]}
    path = tmp_path / "chartqa" / "data" / "test-0.parquet"
    path.parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    opened = RowItems.open(TASKS["chartqa"], tmp_path)
    with pytest.raises(DataError, match=r"row 1: .*(image|gone.png)|item '1' cannot be answered"):
        list(ask_items(assistant, TASKS["chartqa"].ask, list(opened.select([0]))))
