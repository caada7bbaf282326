"""Captions and transcripts that do not agree with their media are left out, and the reason says by how much."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import soundfile
from datatrove.data import Document

from data.samples import record
from phi4.agreement.captions import caption_agreement
from phi4.agreement.model import Judge
from phi4.agreement.transcripts import transcript_agreement
from phi4.checkpoint.convert import convert
from phi4.data.curate.curation import Reason
from phi4.data.curate.documents import record_document
from phi4.data.curate.run import curate
from phi4.data.record import write_records
from phi4.data.shards import ShardedRecords
from phi4.errors import ConfigError
from phi4.processing.messages import Message, user_message

RATE_HZ = 16_000
DISAGREES = "a transcript that does not agree with its sound"


def red_circle() -> bytes:
    picture = PIL.Image.new("RGB", (64, 64), "white")
    PIL.ImageDraw.Draw(picture).ellipse([14, 14, 50, 50], fill="red")
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def sound(seconds: float) -> bytes:
    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.1, 0.1, round(seconds * RATE_HZ))
    soundfile.write(file, samples, RATE_HZ, format="WAV")
    return file.getvalue()


def document(answer: str, images: tuple[bytes, ...] = (), audios: tuple[bytes, ...] = ()) -> Document:
    question = user_message("What is this?", images=images, sounds=audios)
    return record_document(record("a", question, Message("assistant", answer)))


def test_a_caption_of_another_picture_is_left_out_with_its_score() -> None:
    own, other, silent, broken, text, two = caption_agreement().reasons(
        [
            document("red circle", (red_circle(),)),
            document("green triangle", (red_circle(),)),
            document(" ", (red_circle(),)),
            document("red circle", (red_circle()[:100],)),
            document("green triangle"),
            document("red circle", (red_circle(), red_circle())),
        ]
    )
    assert (own, silent, broken, text, two) == (
        None,
        "a picture without a caption",
        "a picture that cannot be decoded",
        None,
        None,
    )
    assert isinstance(other, Reason)
    assert other.text == "a caption that does not agree with its picture"
    assert float(other.detail.removeprefix("score ")) < 0.1


def heard(model: Path, seconds: float) -> str:
    """What the recogniser hears, as the reason for leaving everything out tells it."""
    (reason,) = transcript_agreement(-1, model).reasons([document("no", audios=(sound(seconds),))])
    assert isinstance(reason, Reason)
    assert reason.text == DISAGREES
    return reason.detail.partition("heard: ")[2]


def test_what_the_recogniser_hears_is_kept_and_another_transcript_is_not(tiny_directory: Path) -> None:
    said = heard(tiny_directory, 0.5)
    own, other, silent, broken, text = transcript_agreement(0.5, tiny_directory).reasons(
        [
            document(said.upper(), audios=(sound(0.5),)),
            document("nobody said this", audios=(sound(0.5),)),
            document(" ", audios=(sound(0.5),)),
            document("no", audios=(b"no sound",)),
            document("no"),
        ]
    )
    assert (own, silent, broken, text) == (
        None,
        "a sound without a transcript",
        "a sound that cannot be decoded",
        None,
    )
    assert isinstance(other, Reason)
    assert said[:50] in other.detail
    assert other.detail.startswith("word error rate ")


def test_long_sounds_are_heard_in_pieces(tiny_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phi4.processing.sound_pieces.MIN_PIECE_S", 1)
    monkeypatch.setattr("phi4.processing.sound_pieces.MAX_PIECE_S", 2)
    monkeypatch.setattr("phi4.agreement.transcripts.TOKENS_PER_S", 0)
    monkeypatch.setattr("phi4.agreement.transcripts.LEAST_TOKENS", 2)
    monkeypatch.setattr("phi4.agreement.transcripts.HEARD_LETTERS", 10_000)
    assert len(heard(tiny_directory, 6)) > 2 * len(heard(tiny_directory, 1))


def test_a_model_without_the_modality_is_refused(tiny_directory: Path) -> None:
    with pytest.raises(ConfigError, match="has no vision"):
        caption_agreement(model="nano", packs=()).reasons([document("no", (red_circle(),))])


def test_a_curation_tells_the_score_of_each_record_and_counts_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    captions = ("red circle", "green triangle", "teal rectangle")
    pictures = [
        record(f"{number}", user_message("What?", images=[red_circle()]), Message("assistant", caption))
        for number, caption in enumerate(captions)
    ]
    write_records(tmp_path / "raw/a.jsonl", [*pictures, record("text")])
    (tmp_path / "recipe.py").write_text(
        "from phi4.agreement.captions import caption_agreement\n"
        "from phi4.data.curate.curation import *\nfrom phi4.data.curate.readers import Records\n"
        "def check() -> Curation:\n"
        "    return Curation((Collection('a', '*.jsonl', Records()),), (caption_agreement(),))\n"
    )
    result = curate("recipe.py:check", tmp_path / "raw", tmp_path / "out", 1, "local", "test", lambda _: None)
    assert [one.answer for one in ShardedRecords.open(result.shards)] == ["red circle", "It is text."]
    with gzip.open(tmp_path / "out/removed.jsonl.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    assert len({line["detail"] for line in lines}) == 2
    reason = "| caption agreement | a caption that does not agree with its picture | 2 | 50.00 % |"
    assert reason in result.report.read_text()


def test_a_folder_of_its_name_is_not_the_default_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nano").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Judge.of("nano", None).model == "nano"


def test_adapters_and_configuration_of_a_judge_are_among_its_files(tiny_directory: Path, tmp_path: Path) -> None:
    convert(tiny_directory, tmp_path / "native", "converted")
    names = {path.relative_to(tmp_path / "native").as_posix() for path in Judge.of(tmp_path / "native", None).files}
    assert {"config.json", "speech-lora/adapter_model.safetensors"} <= names
