"""Text tasks read the layouts that their data sets have, and say what is wrong with others."""

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from phi4.errors import DataError, InputError
from phi4.eval.families.instructions import CHECKS, follows
from phi4.eval.items import RowItems
from phi4.eval.registry import TASKS
from phi4.eval.rows import read_rows
from phi4.eval.task import Item, Reply

GSM8K = {"question": "Ann has 2 apples and buys 3. How many?", "answer": "2 + 3 = <<2+3=5>>5\n#### 5"}
MATH = {"problem": "Halve 3.", "level": "Level 1", "type": "Algebra", "solution": "It is $\\boxed{\\frac{3}{2}}$."}
MMLU = {"question": "2 + 2?", "subject": "abstract_algebra", "choices": ["1", "2", "3", "4"], "answer": 3}
ARC = {
    "id": "Mercury_1",
    "question": "What can fly?",
    "choices": {"text": ["a dog", "a bird"], "label": ["A", "B"]},
    "answerKey": "B",
}
HELLASWAG = {
    "ind": 4,
    "activity_label": "Cooking",
    "ctx_a": "A man stirs a pot.",
    "ctx_b": "he",
    "ctx": "A man stirs a pot. he",
    "endings": ["eats [substeps] soup.", "flies away.", "is a pot.", "sings."],
    "label": "0",
}
IFEVAL = {
    "key": 1000,
    "prompt": "Write two words without commas.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{}, {"relation": "less than", "num_words": 3}],
}


def items_of(name: str, folder: Path) -> list[Item]:
    items = RowItems.open(TASKS[name], folder)
    return list(items.select(range(len(items))))


def write_json_lines(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)


def score(name: str, item: Item, *texts: str) -> list[float]:
    sums = [metric.statistics(item, Reply(texts=texts)) for metric in TASKS[name].metrics]
    return [one[0] / one[1] for one in sums]


def test_gsm8k(tmp_path: Path) -> None:
    write_parquet(tmp_path / "gsm8k" / "main" / "test-00000-of-00001.parquet", GSM8K)
    write_parquet(tmp_path / "gsm8k" / "main" / "train-00000-of-00001.parquet", GSM8K, GSM8K)
    (item,) = items_of("gsm8k", tmp_path)
    assert str(item.messages[0].content).startswith("Ann has 2 apples")
    assert score("gsm8k", item, "2 + 3 makes 5.\nThe answer is 5.") == [1.0]
    assert score("gsm8k", item, "6") == [0.0]


def test_math_with_and_without_an_answer_beside_the_solution(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "math" / "test.jsonl", MATH, {**MATH, "answer": "\\frac{3}{2}"})
    for item in items_of("math", tmp_path):
        assert score("math", item, "So it is \\boxed{\\dfrac{3}{2}}.") == [1.0]
        assert score("math", item, "So it is \\boxed{1}.") == [0.0]


def test_mgsm_has_no_header(tmp_path: Path) -> None:
    (tmp_path / "mgsm_de").mkdir()
    (tmp_path / "mgsm_de" / "mgsm_de.tsv").write_text('Ann sagt "2" und kauft 1.234 Äpfel.\t1,236\nEins?\t1\n')
    items = items_of("mgsm_de", tmp_path)
    assert score("mgsm_de", items[0], "Das sind 1236.") == [1.0]
    assert len(items) == 2


def test_mmlu_is_written_as_the_harness_writes_it(tmp_path: Path) -> None:
    write_parquet(tmp_path / "mmlu" / "all" / "test-00000-of-00001.parquet", MMLU)
    (item,) = items_of("mmlu", tmp_path)
    assert item.context == (
        "The following are multiple choice questions (with answers) about abstract algebra.\n\n"
        "2 + 2?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    )
    assert (item.choices, item.right) == ((" A", " B", " C", " D"), 3)


def test_arc(tmp_path: Path) -> None:
    write_parquet(tmp_path / "arc_challenge" / "ARC-Challenge" / "test-0.parquet", ARC)
    (item,) = items_of("arc_challenge", tmp_path)
    assert (item.context, item.choices, item.right) == ("Question: What can fly?\nAnswer:", (" a dog", " a bird"), 1)


def test_hellaswag(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "hellaswag.jsonl", HELLASWAG)
    (item,) = items_of("hellaswag", tmp_path)
    assert (item.context, item.choices[0]) == ("Cooking: A man stirs a pot. He", " eats soup.")
    assert item.right == 0


def test_ifeval(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "ifeval" / "ifeval_input_data.jsonl", IFEVAL)
    (item,) = items_of("ifeval", tmp_path)
    assert score("ifeval", item, "Two words") == [1.0, 1.0]
    assert score("ifeval", item, "Two, words") == [0.0, 0.5]
    assert score("ifeval", item, " ") == [0.0, 0.0]


@pytest.mark.parametrize(
    ("instruction", "arguments", "right", "wrong"),
    [
        ("keywords:existence", {"keywords": ["sea", "sky"]}, "Sea and sky", "sea"),
        ("keywords:frequency", {"keyword": "sea", "relation": "at least", "frequency": 2}, "sea, sea", "sea"),
        ("keywords:forbidden_words", {"forbidden_words": ["sea"]}, "the seal", "the sea"),
        ("keywords:letter_frequency", {"letter": "A", "let_relation": "less than", "let_frequency": 2}, "a", "aa"),
        ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 2}, "A. B.", "A."),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
        ("length_constraints:number_words", {"relation": "at least", "num_words": 2}, "a b", "a"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "so"},
            "a\n\nSo, b",
            "so\n\na",
        ),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] [b]", "[a]"),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. Hello", "Bye."),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a\n* b\n- c"),
        ("detectable_format:constrained_response", {}, "My answer is yes.", "yes"),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a*"),
        (
            "detectable_format:multiple_sections",
            {"section_spliter": "SECTION", "num_sections": 2},
            "SECTION 1\na\nSECTION 2\nb",
            "SECTION 1",
        ),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{a}"),
        ("detectable_format:title", {}, "<<A poem>>\nx", "A poem"),
        ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
        ("combination:repeat_prompt", {"prompt_to_repeat": "Say a."}, "Say a. A!", "A!"),
        ("startend:end_checker", {"end_phrase": "The end."}, "So. The end.", "The end. So"),
        ("startend:quotation", {}, '"So."', '"So.'),
        (
            "change_case:capital_word_frequency",
            {"capital_relation": "at least", "capital_frequency": 2},
            "ONE TWO three",
            "ONE two",
        ),
        ("punctuation:no_comma", {}, "one two", "one, two"),
    ],
)
def test_an_instruction_is_checked(instruction: str, arguments: dict[str, Any], right: str, wrong: str) -> None:
    assert follows(right, [instruction], [arguments]) == [True]
    assert follows(wrong, [instruction], [arguments]) == [False]


def test_an_answer_that_opens_brackets_without_end_is_no_json() -> None:
    assert follows("[" * 100_000, ["detectable_format:json_format"], [{}]) == [False]


def test_the_language_of_an_answer_is_checked() -> None:
    pytest.importorskip("langdetect", reason="needs pip install 'phi4[eval]'")
    instruction, german = ["language:response_language"], [{"language": "de"}]
    assert follows("Der Leuchtturm steht auf einem Felsen im Meer.", instruction, german) == [True]
    assert follows("The lighthouse stands on a rock in the sea.", instruction, german) == [False]
    assert follows("123", instruction, german) == [True]
    capital, small = ["change_case:english_capital"], ["change_case:english_lowercase"]
    assert follows("THE LIGHTHOUSE STANDS ON A ROCK IN THE SEA.", capital, [{}]) == [True]
    assert follows("The lighthouse stands on a rock in the sea.", capital, [{}]) == [False]
    assert follows("DER LEUCHTTURM STEHT AUF EINEM FELSEN IM MEER.", capital, [{}]) == [False]
    assert follows("the lighthouse stands on a rock in the sea.", small, [{}]) == [True]


def test_sections_highlights_and_first_words_are_the_published_ones() -> None:
    sections = [{"section_spliter": "SECTION", "num_sections": 2}]
    assert follows("Section 1\na\nSection 2\nb", ["detectable_format:multiple_sections"], sections) == [False]
    assert follows("* * *", ["detectable_format:number_highlighted_sections"], [{"num_highlights": 1}]) == [False]
    first = [{"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "president"}]
    assert follows("President's day\n\nx", ["length_constraints:nth_paragraph_first_word"], first) == [True]


def test_long_cells_and_marks_of_the_byte_order_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n" + "x" * 200_000 + "\n")
    assert [len(row.text("text")) for row in read_rows(tmp_path / "a.csv")] == [200_000]
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\n')
    assert [row.fields for row in read_rows(tmp_path / "a.jsonl")] == [{"a": 1}]


def test_what_tells_languages_is_asked_for_before_anything_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    for metric in TASKS["ifeval"].metrics:
        assert metric.check is not None
        with pytest.raises(InputError, match="this needs langdetect"):
            metric.check()


def test_all_of_the_data_sets_instructions_are_known() -> None:
    assert len(CHECKS) == 25


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("gsm8k", {"q": "?"}, r"gsm8k.jsonl, row 1: there is no answer; it has q. A row of gsm8k has question, and"),
        ("gsm8k", {"question": "?", "answer": "5"}, "no #### before the number"),
        ("gsm8k", {"question": "?", "answer": "5 ####"}, "the right answer, '', has no number"),
        ("mgsm_de", {"question": "?", "answer_number": "fünf"}, "the right answer, 'fünf', has no number"),
        ("math", {"problem": "?", "solution": "It is 5."}, r"the solution has no \\boxed{} with the answer"),
        ("arc_easy", {**ARC, "choices": {"text": ["a"], "label": ["A", "B"]}}, "choices has 1 texts and 2 labels"),
        ("gsm8k", {"question": ["?"], "answer": "#### 5"}, "question must be text, not a list"),
        ("gsm8k", [1], "is a list, not an object"),
        ("mmlu", {**MMLU, "answer": 4}, "counted from 0, not 4"),
        ("mmlu", {**MMLU, "choices": []}, "choices must be a list of texts"),
        ("mmlu", {**MMLU, "answer": True}, "counted from 0, not True"),
        ("arc_easy", {**ARC, "choices": {"text": "ab", "label": ["A", "B"]}}, "lists text and label"),
        ("hellaswag", {**HELLASWAG, "label": "²"}, "label must be the place"),
        ("ifeval", {**IFEVAL, "kwargs": ["a", "b"]}, "kwargs lack what the instructions need"),
        ("ifeval", {**IFEVAL, "kwargs": [{}, {"relation": 1, "num_words": "x"}]}, "kwargs lack what"),
        ("arc_easy", {**ARC, "choices": ["a"]}, "lists text and label"),
        ("arc_easy", {**ARC, "answerKey": "E"}, r"'E' is none of the labels \['A', 'B'\]"),
        ("hellaswag", {**HELLASWAG, "label": ""}, "label must be the place"),
        ("ifeval", {**IFEVAL, "instruction_id_list": ["a:b", "c:d"]}, "nobody knows how to check 'a:b'"),
        ("ifeval", {**IFEVAL, "kwargs": [{}]}, "one object for each instruction"),
        ("ifeval", {**IFEVAL, "kwargs": [{}, {}]}, "kwargs lack what the instructions need: KeyError"),
        ("perplexity", {"text": " "}, "the text is empty"),
    ],
)
def test_a_row_of_another_layout_is_named(name: str, row: Any, message: str, tmp_path: Path) -> None:
    write_json_lines(tmp_path / f"{name}.jsonl", row)
    with pytest.raises(DataError, match=message):
        items_of(name, tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("gsm8k.jsonl", b"", "is empty; there is nothing to ask"),
        ("gsm8k.jsonl", b'{"question": ', "cannot be read"),
        ("gsm8k.jsonl", b"\xff\xfe\x00", "cannot be read"),
        ("gsm8k.json", b"[" * 100_000, "cannot be read"),
        ("gsm8k.parquet", b"", "cannot be read"),
        ("gsm8k.parquet", b"PAR1 and nothing else", "cannot be read"),
        ("gsm8k.zip", b"PK", r"the name of a data file ends with one of .json .jsonl"),
        ("other.jsonl", b"{}", "holds neither a folder gsm8k nor a file of that name"),
        ("gsm8k/a.jsonl", b"{}", "cannot|there is no answer"),
        ("gsm8k/notes.txt", b"", "no readable file"),
    ],
)
def test_a_file_that_is_no_data_is_named(file: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        items_of("gsm8k", tmp_path)


def test_the_right_split_is_taken_or_the_choice_left_to_the_user(tmp_path: Path) -> None:
    for name in ("train", "valid"):
        write_json_lines(tmp_path / "gsm8k" / f"{name}.jsonl", GSM8K)
    with pytest.raises(DataError, match=r"no file in .* fits 'main/test\*' \(there is train.jsonl, valid.jsonl\)"):
        items_of("gsm8k", tmp_path)


def test_a_line_that_would_take_all_memory_is_refused(tmp_path: Path) -> None:
    """Half a gigabyte in one line; the file has a hole in it and takes no room on disk."""
    for name in ("gsm8k.jsonl", "gsm8k.csv", "gsm8k.json"):
        path = tmp_path / name
        with path.open("wb") as file:
            file.write(b'{"question": "')
            file.truncate(500 * 2**20)
        with pytest.raises(DataError, match=r"line 1 has more than 67,108,864 bytes|has 524,288,000 bytes; at most"):
            items_of("gsm8k", tmp_path)
        path.unlink()


def test_a_parquet_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k.parquet"
    write_parquet(path, *[GSM8K] * 1000)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:-4], whole[:40] + bytes(len(whole) - 400) + whole[-360:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"gsm8k\.parquet cannot be read"):
            items_of("gsm8k", tmp_path)
