"""Filters for pictures and sounds tell good ones from bad ones, and near-duplicate pictures are found."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import soundfile
from datatrove.data import Document

from data.curate.recipes import removed, run
from data.samples import record
from phi4.data.curate import media
from phi4.data.curate.documents import record_document
from phi4.data.curate.perceptual import perceptual_hash, similar_groups
from phi4.data.record import write_records
from phi4.data.shards import ShardedRecords
from phi4.processing.messages import Message, user_message

RATE_HZ = 16_000


def scene(seed: int, side: int = 96, form: str = "PNG", **options: int) -> bytes:
    """A picture with soft structure, as photographs have."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(coarse).resize((side, side), PIL.Image.Resampling.BICUBIC).save(file, form, **options)
    return file.getvalue()


def sound(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE_HZ, format="WAV", subtype="FLOAT")
    return file.getvalue()


def noise(seconds: float, level: float = 0.1) -> np.ndarray:
    return np.random.default_rng(0).uniform(-level, level, round(seconds * RATE_HZ))


def document(answer: str, images: tuple[bytes, ...] = (), audios: tuple[bytes, ...] = ()) -> Document:
    question = user_message("What is this?", images=images, sounds=audios)
    return record_document(record("a", question, Message("assistant", answer)))


@pytest.mark.parametrize(
    ("step", "bad", "reason"),
    [
        (media.decodable(), document("no", images=(scene(0)[:200],)), "a picture that cannot be decoded"),
        (media.decodable(), document("no", audios=(b"",)), "a sound of zero bytes"),
        (media.picture_size(), document("no", images=(scene(0, side=40),)), "a picture that is too small"),
        (media.answer_length(), document("A house"), "an answer that is too short"),
        (media.answer_length(max_words=5), document("one two three four five six"), "an answer that is too long"),
        (media.duration(), document("no", audios=(sound(noise(0.2)),)), "a sound that is too short"),
        (media.duration(max_s=2), document("no", audios=(sound(noise(2.5)),)), "a sound that is too long"),
        (
            media.silence(),
            document("no", audios=(sound(np.concatenate([noise(1), np.zeros(2 * RATE_HZ)])),)),
            "a sound that is mostly silent",
        ),
        (media.clipping(), document("no", audios=(sound(np.clip(noise(1, 1.5), -1, 1)),)), "a sound that is clipped"),
        (media.speaking_rate(), document("No", audios=(sound(noise(10)),)), "too few words for the sound"),
        (media.speaking_rate(), document("word " * 20, audios=(sound(noise(1)),)), "too many words for the sound"),
    ],
)
def test_a_filter_says_what_is_wrong_and_keeps_what_is_right(step: media.Filter, bad: Document, reason: str) -> None:
    assert step.reason(bad) == reason
    good = document("A house by the sea", images=(scene(1),), audios=(sound(noise(2)),))
    assert step.reason(good) is None


@pytest.mark.parametrize("step", [media.picture_size(), media.decodable()])
def test_a_filter_of_pictures_leaves_out_what_it_cannot_decode(step: media.Filter) -> None:
    assert step.reason(document("no", images=(scene(0)[:200],))) == "a picture that cannot be decoded"
    assert step.reason(document("no", images=(b"",))) == "a picture of zero bytes"


@pytest.mark.parametrize("step", [media.duration(), media.silence(), media.clipping(), media.speaking_rate()])
def test_a_filter_of_sounds_leaves_out_what_it_cannot_decode(step: media.Filter) -> None:
    assert step.reason(document("no", audios=(sound(noise(1))[:30],))) == "a sound that cannot be decoded"
    assert step.reason(document("no", audios=(b"",))) == "a sound of zero bytes"


def test_a_narrow_picture_is_told_by_its_sides() -> None:
    file = io.BytesIO()
    PIL.Image.new("RGB", (500, 100)).save(file, "PNG")
    step = media.picture_size()
    assert step.reason(document("no", images=(file.getvalue(),))) == "a picture that is too narrow"


def test_a_picture_keeps_its_hash_when_it_is_scaled_or_compressed() -> None:
    original = perceptual_hash(scene(3))
    assert original is not None
    for other in (scene(3, side=300), scene(3, form="JPEG", quality=40)):
        changed = perceptual_hash(other)
        assert changed is not None
        assert (original ^ changed).bit_count() <= 4
    different = perceptual_hash(scene(4))
    assert different is not None
    assert (original ^ different).bit_count() > 10


def test_grouping_finds_all_pairs_that_are_near() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, 300, dtype=np.uint64)
    for place in range(0, 300, 3):
        flips = generator.choice(64, size=place % 6, replace=False)
        hashes[place + 1] = hashes[place] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=0)
    groups = similar_groups(hashes, max_distance=4)
    near = np.bitwise_count(hashes[:, None] ^ hashes[None, :]) <= 4
    assert all(groups[one] == groups[two] for one, two in zip(*np.nonzero(near), strict=True))
    assert len(set(groups.tolist())) == len({tuple(np.flatnonzero(row)) for row in near})


def test_near_duplicate_pictures_are_removed_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = {"one": scene(1), "two": scene(2), "again": scene(1, form="JPEG", quality=60), "broken": scene(5)[:99]}
    pictures["grey"] = scene(6)
    records = [
        record(name, user_message("What?", images=[content]), Message("assistant", f"A picture called {name}."))
        for name, content in pictures.items()
    ]
    write_records(tmp_path / "raw/a/records.jsonl", records[:2])
    write_records(tmp_path / "raw/b/records.jsonl", records[2:])
    recipe = Path(__file__).parents[3] / "recipes/curation/media.py"
    (tmp_path / "recipe.py").write_text(recipe.read_text().replace("def captions", "def check"))
    result = run(tmp_path, "")
    kept = ShardedRecords.open(result.shards)
    assert [item.answer.split()[-1] for item in kept] == ["one.", "two.", "grey."]
    assert kept[0].messages[0].media[0].source == pictures["one"]
    assert [(step, reason) for _, step, reason in removed(result)] == [
        ("decodable media", "a picture that cannot be decoded"),
        ("near-duplicate pictures", "another one is kept"),
    ]
