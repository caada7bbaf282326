import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile

from phi4.data.record import Record
from phi4.errors import DataError
from phi4.processing.audio_file import load_audio
from phi4.processing.messages import Image, Message, Sound
from recipes.nano import speech
from recipes.nano.asterisk import read_prompts, spell_out
from recipes.nano.augment_sounds import (
    NOISES,
    augment,
    change_timbre,
    convolve,
    distort,
    move_formants,
    mu_law,
    noise,
    room_response,
    swallow,
)
from recipes.nano.sentences import is_held_out, normalise
from recipes.nano.spoken import Utterance, utterances
from recipes.nano.voices import ESPEAK_NAMES, HELD_OUT, QUICK_ENGINES, TRAINING, Voice, clip, clip_path, espeak

RATE_HZ = 16000

QUESTIONS = [f"is there a {color} {shape}?" for color in ("red", "blue") for shape in ("circle", "rectangle")]
EVERYDAY = [
    f"the {size} {thing} is {where} {when}"
    for size, thing, where, when in product(
        ("old", "new", "odd", "big", "wet", "dry", "hot", "low"),
        ("key", "cup", "hat", "map", "box", "bag", "pen", "bus", "car", "cat"),
        ("here", "there", "gone", "lost", "mine", "late", "blue", "sold"),
        ("now", "again", "today", "already", "at last", "as usual", "of course", "they say", "i think"),
    )
]


@pytest.fixture(scope="module")
def plan() -> list[Utterance]:
    return utterances(QUESTIONS, EVERYDAY)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHI4_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def small_plan(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> list[Utterance]:
    """A few clips of an engine that is quick."""
    lines = [
        Utterance(Voice("espeak", "en-us+f3"), "one two three", 1.0, "digits", "test"),
        Utterance(Voice("espeak", "en-us+f3"), "is there a red circle", 1.0, "question", "test"),
        Utterance(Voice("espeak", "en"), "is there a red circle", 1.1, "question", "train"),
        Utterance(Voice("espeak", "en+m1"), "is there a red circle", 0.95, "question", "train"),
        Utterance(Voice("espeak", "en+m1"), "the old key is lost", 1.0, "everyday", "train"),
    ]
    monkeypatch.setattr(speech, "plan", lambda: tuple(lines))
    return lines


def texts(plan: list[Utterance], split: str) -> set[str]:
    return {line.text for line in plan if line.split == split and line.kind != "question"}


def sound_of(record: Record) -> bytes:
    (sound,) = [part for message in record.messages for part in message.parts if isinstance(part, Sound)]
    assert isinstance(sound.source, bytes)
    return sound.source


def generators(count: int) -> Iterator[np.random.Generator]:
    return (np.random.Generator(np.random.Philox(key=[7, draw])) for draw in range(count))


def hum(seconds: float) -> np.ndarray:
    """Something like a vowel."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return sum(np.sin(2 * np.pi * 120 * k * times) / k for k in range(1, 20)).astype(np.float32) / 2


def test_held_out_voices_say_nothing_in_training(plan: list[Utterance]) -> None:
    speakers = {split: {line.voice for line in plan if line.split == split} for split in ("train", "valid", "test")}
    assert speakers == {"train": set(TRAINING), "valid": set(TRAINING), "test": set(HELD_OUT)}
    assert not set(TRAINING) & set(HELD_OUT)


def test_held_out_espeak_throat_has_no_other_accent_in_training() -> None:
    (held_out,) = [voice.name.partition("+")[2] for voice in HELD_OUT if voice.engine == "espeak"]
    assert all(voice.name.partition("+")[2] != held_out for voice in TRAINING if voice.engine == "espeak")


def test_held_out_sentences_are_said_in_no_other_split(plan: list[Utterance]) -> None:
    train, valid, test = (texts(plan, split) for split in ("train", "valid", "test"))
    assert not train & test
    assert not train & valid
    assert not valid & test
    assert not any(
        is_held_out(line.text) for line in plan if line.split == "train" and line.kind in ("command", "everyday")
    )


def test_every_voice_says_every_kind_of_sentence(plan: list[Utterance]) -> None:
    counts = Counter((line.voice, line.kind) for line in plan if line.split == "train")
    assert all(counts[voice, kind] >= 4 for voice in TRAINING for kind in ("digits", "command", "question", "everyday"))


def test_the_plan_says_nothing_twice_and_only_what_can_be_transcribed(plan: list[Utterance]) -> None:
    assert len({(line.voice, line.text, line.speed) for line in plan}) == len(plan)
    assert all(normalise(line.text) == line.text for line in plan)


def test_the_plan_is_the_same_every_time(plan: list[Utterance]) -> None:
    assert utterances(QUESTIONS, EVERYDAY) == plan
    # Clips take an hour to make: whoever changes the plan should mean it.
    words = "\n".join(f"{line.split} {line.voice.engine} {line.speed} {line.text}" for line in plan)
    assert hashlib.sha256(words.encode()).hexdigest()[:16] == "98dec8735db48a89"


def test_a_clip_is_named_after_voice_text_and_speed(empty_cache: Path) -> None:
    voice = Voice("kokoro", "af_heart")
    path = clip_path(voice, "one two three", 1.1)
    assert path == empty_cache / "nano-clips/kokoro-af_heart/78b4d4627ff05cee697860f9.flac"
    others = [
        clip_path(Voice("kokoro", "af_bella"), "one two three", 1.1),
        clip_path(voice, "one two", 1.1),
        clip_path(voice, "one two three", 1.0),
    ]
    assert len({path, *others}) == 4


def test_a_clip_is_synthesised_once(empty_cache: Path) -> None:
    path = clip(Voice("espeak", "en"), "hello there")
    content = path.read_bytes()
    assert clip(Voice("espeak", "en"), "hello there").read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ESPEAK_NAMES)
def test_espeak_has_the_voice(name: str) -> None:
    samples, sample_rate_hz = espeak(name, "seven", 1.0)
    assert 0.2 < len(samples) / sample_rate_hz < 2
    assert np.abs(samples).max() > 0.1


@pytest.mark.parametrize("name", ["en-us+nobody", "nowhere"])
def test_espeak_does_not_fall_back_to_another_voice(name: str) -> None:
    with pytest.raises(DataError, match="no voice"):
        espeak(name, "seven", 1.0)


def test_silence_is_an_error(empty_cache: Path) -> None:
    with pytest.raises(DataError, match="says nothing"):
        clip(Voice("espeak", "en"), " ")


def test_records_are_16_khz_flac_with_their_transcript(small_plan: list[Utterance]) -> None:
    records = list(speech.speech_records())
    assert [record.answer for record in records] == [line.text for line in small_plan]
    assert [(record.split, record.task) for record in records] == [(line.split, line.kind) for line in small_plan]
    for record in records:
        with soundfile.SoundFile(io.BytesIO(sound_of(record))) as file:
            assert (file.format, file.samplerate, file.channels) == ("FLAC", RATE_HZ, 1)
            samples = file.read()
        assert 0.5 < len(samples) / RATE_HZ < 4
        loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
        assert max(loud[0], len(samples) - loud[-1]) < 0.2 * RATE_HZ
    assert len({record.id for record in records}) == len(records)
    assert "GPL" in records[0].licence
    assert "WordNet" in records[-1].licence


def test_only_cached_clips_become_records_if_no_engine_is_to_speak(small_plan: list[Utterance]) -> None:
    assert list(speech.speech_records(engines=())) == []
    clip(small_plan[1].voice, small_plan[1].text, small_plan[1].speed)
    assert [record.task for record in speech.speech_records(engines=())] == ["question"]


def test_the_quick_engines_alone_speak_if_asked(small_plan: list[Utterance], monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Utterance(Voice("kokoro", "af_heart"), "is there a red circle", 1.0, "question", "train")
    monkeypatch.setattr(speech, "plan", lambda: (slow, *small_plan))
    assert len(list(speech.speech_records(QUICK_ENGINES))) == len(small_plan)
    assert speech.question_clips("train", [slow.voice], QUICK_ENGINES) == {}


def test_question_clips_are_those_of_the_split_and_the_voices(small_plan: list[Utterance]) -> None:
    clips = speech.question_clips("train", TRAINING)
    assert clips.keys() == {"is there a red circle"}
    assert len(clips["is there a red circle"]) == 2
    assert len(speech.question_clips("train", [Voice("espeak", "en")])["is there a red circle"]) == 1
    assert len(speech.question_clips("test", HELD_OUT)["is there a red circle"]) == 1
    assert speech.question_clips("test", TRAINING) == {}


def test_only_training_varies_the_request(small_plan: list[Utterance]) -> None:
    requests = {
        record.id: record.messages[0].parts[-1] for record in speech.speech_records() if record.split != "train"
    }
    assert set(requests.values()) == {"Transcribe the audio clip into text."}
    training = Counter(speech.training_prompt(f"voice/{number}") for number in range(1000))
    assert set(training) == {speech.PROMPT, *speech.OTHER_PROMPTS}
    assert 400 < training[speech.PROMPT] < 600
    assert speech.training_prompt("voice/1") == speech.training_prompt("voice/1")


def test_trimming_leaves_fifteen_hundredths_of_silence() -> None:
    silence = np.zeros(RATE_HZ, dtype=np.float32)
    trimmed = speech.trim(np.concatenate([silence, hum(0.5), silence]))
    assert len(trimmed) / RATE_HZ == pytest.approx(0.8, abs=0.01)
    assert len(speech.trim(hum(0.5))) == RATE_HZ // 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" Press 1 to record, or 2 to listen...", "press one to record or two to listen"),
        ("at [@]", "at"),
        ("A.M.", "a m"),
        ("I'm sorry, that's \"right\"!", "i'm sorry that's right"),
        ("fourtieth", "fortieth"),
        ("[ascending tones]", None),
        ("<beep ascending>", None),
        ("(1 second of silence)", None),
        ("Dial 500 now", None),
        ("press * and then #", None),
        ("3D audio enabled", None),
        ("IAX", None),
        ("visit www.asterisk.org", None),
    ],
)
def test_a_transcript_says_every_word_or_is_left_out(text: str, said: str | None) -> None:
    assert (spell_out(text) and normalise(spell_out(text) or "")) == said


def test_prompts_are_read_from_asterisks_list() -> None:
    listing = "; Core Sounds: English\n\nactivated: Activated.\ndigits/1: one\nbeep: [tone]\nvm-press:  Press 5: now\n"
    assert list(read_prompts(listing)) == [
        ("activated", "Activated."),
        ("digits/1", "one"),
        ("vm-press", "Press five: now"),
    ]


@pytest.fixture(scope="module")
def record() -> Record:
    content = (Image(b"a picture"), Sound(speech.flac(hum(1.5))), speech.PROMPT)
    messages = (Message("user", content), Message("assistant", "hello"))
    return Record("x", messages, source="s", licence="l", split="train", task="everyday")


def test_augmented_speech_is_sound_of_about_the_same_length(record: Record) -> None:
    for generator in generators(60):
        samples = load_audio(sound_of(augment(record, generator)), RATE_HZ)
        assert np.isfinite(samples).all()
        assert 1.5 / 1.16 < len(samples) / RATE_HZ < 1.5 / 0.84 + 1.0
        assert 10 ** (-26 / 20) < np.abs(samples).max() <= 1.0


def test_augmentation_depends_on_the_generator_alone(record: Record) -> None:
    first, again = ([sound_of(augment(record, g)) for g in generators(30)] for _ in range(2))
    assert first == again
    assert len(set(first)) > 20


def test_augmentation_leaves_some_records_as_they_are(record: Record) -> None:
    unchanged = sum(augment(record, generator) is record for generator in generators(400))
    assert 30 < unchanged < 90


def test_augmentation_keeps_pictures_and_texts(record: Record) -> None:
    for generator in generators(10):
        augmented = augment(record, generator)
        picture, _, text = augmented.messages[0].content
        assert (picture, text) == (record.messages[0].content[0], speech.PROMPT)
        assert augmented.messages[1] is record.messages[1]
        assert augmented.id == record.id


def test_silence_stays_silence(record: Record) -> None:
    silent = Message("user", (Sound(speech.flac(np.zeros(1600))),))
    quiet = Record("x", (silent, record.messages[1]), source="s", licence="l", split="train", task="everyday")
    for generator in generators(5):
        assert sound_of(augment(quiet, generator)) == silent.content[0].source


def test_a_hundredth_of_a_second_is_no_trouble() -> None:
    for generator in generators(40):
        assert np.isfinite(distort(np.ones(160, dtype=np.float32), generator)).all()


def test_noise_has_a_power_of_one() -> None:
    for generator in generators(5 * len(NOISES)):
        samples = noise(20_000, generator)
        assert samples.shape == (20_000,)
        assert np.square(samples).mean() == pytest.approx(1.0, rel=1e-3)


def vowel(pitch_hz: int, formant_hz: int) -> np.ndarray:
    """A second of pulses through one resonance."""
    pulses = np.zeros(RATE_HZ, dtype=np.float32)
    pulses[:: RATE_HZ // pitch_hz] = 1.0
    seconds = np.arange(400) / RATE_HZ
    return convolve(pulses, np.exp(-600 * seconds) * np.sin(2 * np.pi * formant_hz * seconds))


def strengths(samples: np.ndarray, multiples_of_hz: int) -> np.ndarray:
    return np.abs(np.fft.rfft(samples))[::multiples_of_hz][:20]


@pytest.mark.parametrize("factor", [0.85, 1.18])
def test_formants_move_and_the_pitch_stays(factor: float) -> None:
    before = vowel(pitch_hz=100, formant_hz=1000)
    after = move_formants(before, factor)
    assert after.shape == before.shape
    middles = [np.average(np.arange(20), weights=strengths(samples, 100) ** 2) for samples in (before, after)]
    assert middles[1] / middles[0] == pytest.approx(factor, abs=0.1)
    between = np.abs(np.fft.rfft(after))[50::100][:20]
    assert between.max() < 0.1 * strengths(after, 100).max()


def test_a_mouth_and_a_timbre_that_change_nothing_leave_the_sound() -> None:
    samples = vowel(pitch_hz=100, formant_hz=1000)
    np.testing.assert_allclose(move_formants(samples, 1.0), samples, atol=1e-5)
    np.testing.assert_allclose(change_timbre(samples, np.zeros(5)), samples, atol=1e-5)


def test_a_timbre_is_a_gain_at_each_frequency() -> None:
    tone = np.sin(2 * np.pi * 2000 * np.arange(16384) / RATE_HZ)
    louder = change_timbre(tone, np.array([0.0, 20.0, 0.0, 0.0, 0.0]))
    assert np.abs(louder[2000:-2000]).max() == pytest.approx(10.0, rel=0.01)


def test_a_few_moments_are_swallowed_and_the_rest_stays() -> None:
    samples = np.ones(RATE_HZ, dtype=np.float32)
    kept = swallow(samples, np.random.default_rng(0))
    assert samples.all()
    assert 0.02 <= (kept == 0).mean() <= 3 * 0.08
    assert set(kept) == {0.0, 1.0}


def test_rooms_are_near_or_far_and_fade() -> None:
    for generator in generators(20):
        response = room_response(generator)
        ratio_db = -10 * np.log10(np.square(response[1:]).sum())
        assert response[0] == 1.0
        assert -6 < ratio_db < 21
        assert 0.1 <= len(response) / RATE_HZ <= 0.6
        tenth = len(response) // 10
        assert np.square(response[-tenth:]).sum() < 1e-4 * np.square(response[1:tenth]).sum()


def test_mu_law_is_exact_at_the_ends_and_close_between() -> None:
    samples = np.linspace(-1, 1, 20_001)
    rounded = mu_law(samples)
    assert rounded[[0, 10_000, -1]] == pytest.approx([-1, 0, 1])
    assert np.abs(rounded - samples).max() < 0.025
    assert len(np.unique(rounded)) == 255
