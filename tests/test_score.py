"""Answering records in groups, and the numbers that answers are worth."""

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.samples import media_record, png, record, wav
from phi4.assistant import Assistant
from phi4.data.record import Record
from phi4.data.shards import write_shards
from phi4.engine.sampling import Sampling
from phi4.errors import DataError
from phi4.processing.messages import Message, user_message
from phi4.score import answer_records, edit_distance, group_by_length, read_held_out, score_answers, split_words


def naive_distance(left: str, right: str) -> int:
    """The definition."""

    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        changed = distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        return min(changed, distance(i - 1, j) + 1, distance(i, j - 1) + 1)

    return distance(len(left), len(right))


@pytest.fixture(scope="module")
def assistant(tiny_directory: Path) -> Assistant:
    """In fp32, where company does not decide between two tokens."""
    return Assistant.load(tiny_directory, dtype=torch.float32, device="cpu")


def records_of_all_kinds() -> list[Record]:
    """More than one group of them, with answers of many lengths."""
    questions = [
        user_message(f"Question {seed}", [png(seed)] if seed % 2 else [], [wav(seed)] if seed % 3 == 0 else [])
        for seed in range(18)
    ]
    answers = [Message("assistant", "word " * (seed * 7 % 18)) for seed in range(18)]
    return [record(f"r{seed}", questions[seed], answers[seed], split="test") for seed in range(18)]


@settings(deadline=None)
@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_the_edit_distance_is_the_fewest_changes(left: str, right: str) -> None:
    assert edit_distance(left, right) == naive_distance(left, right)


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 7))
def test_groups_hold_every_place_once_and_near_lengths(lengths: list[int], max_records: int) -> None:
    groups = group_by_length(lengths, max_records)
    assert sorted(place for group in groups for place in group) == list(range(len(lengths)))
    assert all(len(group) <= max_records for group in groups)
    spans = sorted((min(lengths[place] for place in group), max(lengths[place] for place in group)) for group in groups)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_answers_in_groups_are_the_assistants_own(assistant: Assistant) -> None:
    records = records_of_all_kinds()
    answers = dict(answer_records(assistant, records, max_tokens=6))
    assert sorted(answers) == list(range(len(records)))
    for place, one in enumerate(records):
        alone = assistant.reply(one.messages[:-1], sampling=Sampling(max_tokens=6)).answer
        assert answers[place] == alone.text
    assert len(set(answers.values())) > 12


def test_earlier_answers_of_a_conversation_are_context(assistant: Assistant) -> None:
    turns = (Message("user", "One?"), Message("assistant", "Two."), Message("user", "Three?"))
    other = (turns[0], Message("assistant", "Ten."), turns[2])
    records = [record(name, *chat, Message("assistant", "Four.")) for name, chat in (("a", turns), ("b", other))]
    answers = dict(answer_records(assistant, records, max_tokens=6))
    assert answers[0] == assistant.reply(turns, sampling=Sampling(max_tokens=6)).answer.text
    assert answers[0] != answers[1]


def test_a_record_that_cannot_be_answered_is_named(assistant: Assistant) -> None:
    broken = record("broken", user_message("What?", [b"no picture"]), Message("assistant", "Nothing."))
    with pytest.raises(DataError, match=r"record 'broken' from 'made up' cannot be answered"):
        list(answer_records(assistant, [broken], max_tokens=2))


def test_scores_count_letters_words_and_whole_answers() -> None:
    score = score_answers(["three red dots", "No."], ["three green dots ", "no"])
    assert (score.records, score.exact) == (2, 0.0)
    # red -> green: two insertions and one replacement; No. -> no: one replacement and one deletion.
    assert score.character_accuracy == pytest.approx(1 - 5 / 17)
    assert score.word_error_rate == pytest.approx(1 / 4)
    assert score_answers(["a", "b"], [" a\n", "c"]).exact == 0.5


def test_answers_that_are_much_too_long_count_for_less_than_nothing() -> None:
    score = score_answers(["yes"], ["yes yes yes"])
    assert score.character_accuracy < 0
    assert score.word_error_rate == 2.0


def test_nothing_is_not_scored() -> None:
    with pytest.raises(DataError, match="no answers"):
        score_answers([], [])


def test_words_have_no_case_and_no_punctuation() -> None:
    assert split_words("Don't stop — it's 9:40, Émile!") == ["don't", "stop", "it's", "9", "40", "émile"]


def test_held_out_records_are_the_first_of_each_task(tmp_path: Path) -> None:
    texts = [record(f"t{number}", split="test", task="chat") for number in range(5)]
    others = [record("train", split="train", task="chat"), media_record(1, split="test", task="both")]
    pictures = [
        record(f"p{number}", user_message("What?", [png(number)]), Message("assistant", "x"), split="test", task="look")
        for number in range(3)
    ]
    write_shards([*others, *pictures, *texts], tmp_path / "mixed")
    write_shards([record("later", split="test", task="chat")], tmp_path / "second")
    found = {(one.dataset, one.task, one.media): [r.id for r in one.records] for one in read_held_out(tmp_path, 2)}
    assert found == {
        ("mixed", "both", "vision+speech"): ["media-1"],
        ("mixed", "look", "vision"): ["p0", "p1"],
        ("mixed", "chat", "text"): ["t0", "t1"],
        ("second", "chat", "text"): ["later"],
    }
    assert sum(len(one.records) for one in read_held_out(tmp_path)) == 10


def test_data_without_test_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no folder of shards"):
        read_held_out(tmp_path / "nowhere")
    write_shards([record("a"), record("b", split="valid")], tmp_path / "chats")
    with pytest.raises(DataError, match=r"no test records \(chats\)"):
        read_held_out(tmp_path)


def test_accents_and_vowel_signs_belong_to_their_words() -> None:
    assert split_words("cafe\u0301s don’t हिन्दी 'so' rock'n'roll") == ["cafés", "don't", "हिन्दी", "so", "rock'n'roll"]
    assert score_answers(["कि"], ["का"]).word_error_rate == 1.0
