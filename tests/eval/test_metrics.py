"""What answers are worth, and how sure that is."""

import math

import numpy as np
import pytest

from phi4.errors import DataError, InputError
from phi4.eval import language_metrics
from phi4.eval.families.arithmetic import last_box, last_number, last_number_behind_points
from phi4.eval.language_metrics import CER, CHRF, UNSPACED_CER, WER, bleu
from phi4.eval.metrics import (
    ACCURACY,
    ACCURACY_BY_LENGTH,
    ANLS,
    BITS_PER_BYTE,
    RELAXED_ACCURACY,
    VQA_ACCURACY,
    WORD_PERPLEXITY,
    exact_match,
    total,
)
from phi4.eval.resample import compare, estimate
from phi4.eval.task import Item, Metric, Reply

SENTENCES = [
    ("The cat sat on the mat.", "The cat sat on a mat."),
    ("It is raining today.", "Today it rains."),
    ("Good morning!", "Good morning!"),
]


def value(metric: Metric, references: list[str], *texts: str) -> float:
    statistics = metric.statistics(Item("i", references=tuple(references)), Reply(texts=texts))
    return total(metric.total, np.array(statistics))


def of_corpus(metric: Metric) -> float:
    rows = [metric.statistics(Item("i", references=(right,)), Reply(texts=(given,))) for right, given in SENTENCES]
    return total(metric.total, np.array(rows, dtype=np.float64).sum(0))


def test_the_most_probable_choice_counts_and_by_length_the_one_with_the_most_probable_letters() -> None:
    item = Item("i", choices=(" a", " a much longer one"), right=1)
    reply = Reply(log_likelihoods=(-2.0, -6.0))
    assert ACCURACY.statistics(item, reply) == (0.0, 1.0)
    assert ACCURACY_BY_LENGTH.statistics(item, reply) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so 3 + 4 = 7 apples.", "7"),
        ("$1,234.50 in all", "1234.5"),
        ("-12", "-12"),
        ("none", ""),
        ("7.00", "7"),
        ("১৮", "18"),
        ("−5", "-5"),
        ("18,00 €", "18"),
        ("1,000", "1000"),
    ],
)
def test_the_last_number_of_an_answer_counts(text: str, number: str) -> None:
    assert last_number(text) == number


def test_points_part_thousands_where_they_do_so_in_the_language() -> None:
    assert last_number_behind_points("1.000 Euro") == "1000"
    assert last_number_behind_points("1 000 €") == "1000"
    assert last_number_behind_points("1.5") == "1.5"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("it is \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{\\dfrac12}", "\\frac{1}{2}"),
        ("first \\boxed{1}, no, \\boxed{x^{2}}", "x^{2}"),
        ("\\boxed{12,000\\text{ cm}}", "12000"),
        ("\\boxed{3", "3"),
        ("\\boxed{\\text{even}}", "even"),
        ("\\boxed{\\text{(A)}, \\text{(C)}}", "(A),(C)"),
        ("\\boxed{5 \\text{cm}}", "5"),
    ],
)
def test_the_last_box_of_an_answer_counts(text: str, answer: str) -> None:
    assert last_box(text) == answer


def test_any_reference_will_do() -> None:
    metric = exact_match(str.strip)
    assert value(metric, ["one", "1"], " 1\n") == 1.0
    assert value(metric, ["one", "1"], "two") == 0.0


def test_anls_forgives_letters_but_not_half_the_word() -> None:
    assert value(ANLS, ["2021-05-01"], "2021-05-07") == pytest.approx(0.9)
    assert value(ANLS, ["hello", "invoice"], "Invoice") == 1.0
    assert value(ANLS, ["abcd"], "wxyd") == 0.0


def test_numbers_of_charts_may_be_off_by_a_twentieth() -> None:
    assert value(RELAXED_ACCURACY, ["100"], "104.9") == 1.0
    assert value(RELAXED_ACCURACY, ["100"], "106") == 0.0
    assert value(RELAXED_ACCURACY, ["12%"], "0.12") == 1.0
    assert value(RELAXED_ACCURACY, ["Yes"], "yes.") == 1.0
    assert value(RELAXED_ACCURACY, ["Nan"], "nan") == 1.0


def test_three_people_of_ten_are_enough() -> None:
    people = ["cat"] * 3 + ["dog"] * 7
    # Whoever is left out of ten: for three of them only two others said "cat".
    assert value(VQA_ACCURACY, people, "The cat") == pytest.approx((7 * 1 + 3 * 2 / 3) / 10)
    assert value(VQA_ACCURACY, people, "bird") == 0.0


def test_error_rates_are_of_the_words_and_letters_together() -> None:
    # Sentences of 6, 4 and 2 words; the: a; everything but "today" out of place.
    assert of_corpus(WER) == pytest.approx((1 + 4 + 0) / 12)
    assert 0 < of_corpus(CER) < 1
    assert value(WER, ["Hello there"], "hello, THERE!") == 0.0


def test_bleu_and_chrf_are_sacrebleus() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    given, right = [pair[1] for pair in SENTENCES], [pair[0] for pair in SENTENCES]
    assert of_corpus(bleu()) == pytest.approx(sacrebleu.corpus_bleu(given, [right]).score)
    assert of_corpus(CHRF) == pytest.approx(sacrebleu.corpus_chrf(given, [right]).score)


def test_perplexity_is_per_word_and_bits_per_byte() -> None:
    item, reply = Item("i", choices=("two words",)), Reply(log_likelihoods=(-2 * math.log(8),))
    assert total("perplexity", np.array(WORD_PERPLEXITY.statistics(item, reply))) == pytest.approx(8)
    assert total("bits", np.array(BITS_PER_BYTE.statistics(item, reply))) == pytest.approx(6 / 9)


def test_nothing_to_compare_with_is_said() -> None:
    with pytest.raises(DataError, match="every one is empty"):
        total("ratio", np.array([1.0, 0.0]))


def test_a_missing_library_is_named_with_its_extra() -> None:
    with pytest.raises(InputError, match=r"no_such_library, which is not installed: pip install 'phi4\[eval\]'"):
        language_metrics.import_library("no_such_library")


def test_an_interval_is_as_wide_as_theory_says() -> None:
    right = np.arange(400) % 4 == 0
    found = estimate("ratio", np.stack([right, np.ones(400)], axis=1), seed=0)
    error = math.sqrt(0.25 * 0.75 / 400)
    assert found.value == 0.25
    assert found.low == pytest.approx(0.25 - 1.96 * error, abs=0.01)
    assert found.high == pytest.approx(0.25 + 1.96 * error, abs=0.01)
    assert found == estimate("ratio", np.stack([right, np.ones(400)], axis=1), seed=0)


def test_a_comparison_is_paired() -> None:
    generator = np.random.default_rng(0)
    first = generator.random(200) < 0.5
    second = first.copy()
    second[:12] = True
    ones = np.ones(200)
    moved = compare("ratio", np.stack([first, ones], 1), np.stack([second, ones], 1), seed=0)
    gained = int((second & ~first).sum())
    assert moved.value == pytest.approx(gained / 200)
    # All changes are to the better, which a coin does once in 2^gained times; unpaired intervals would overlap.
    assert moved.p_value < 0.05
    assert moved.low > 0
    same = compare("ratio", np.stack([first, ones], 1), np.stack([first, ones], 1), seed=0)
    assert (same.value, same.p_value) == (0.0, 1.0)


def test_spaces_are_no_letters_where_none_are_written() -> None:
    assert value(UNSPACED_CER, ["这 并 不 是 告 别"], "这并不是告别。") == 0.0
    assert value(UNSPACED_CER, ["你好，世界"], "你好世间") == 0.25
    assert value(WER, ["🐶"], "🐶") == 0.0


def test_answers_about_pictures_are_compared_as_vqa_does() -> None:
    for right, given, worth in (("3.5", "35", 0), ("10:30", "1030", 0), ("two", "2", 1), ("new york", "New-York.", 1)):
        assert value(VQA_ACCURACY, [right] * 10, given) == worth
