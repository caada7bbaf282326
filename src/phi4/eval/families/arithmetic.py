"""Word problems with a number or a formula as the answer: GSM8K, MGSM, MATH."""

import re
import unicodedata

from phi4.engine.sampling import Sampling
from phi4.eval.metrics import exact_match
from phi4.eval.rows import SourceRow
from phi4.eval.task import Generate, Item, Rows, Task
from phi4.processing.messages import Message

NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
# Units stand behind a value, with a space in front of them or a digit; other text is the answer, or a part of it.
UNIT = re.compile(r"(?<!^)\\text\s*\{\s[^{}]*\}|(?<=\d)\s*\\text\s*\{[^{}]*\}")
# GSM8K notes sums for a calculator in its solutions.
CALCULATION = re.compile(r"<<[^<>]*>>")
# "Question:" and "Step-by-Step Answer:" in eleven languages.
LEADING_WORDS = re.compile(r"^[^:：]{1,40}[:：]\s*")
ASK_FOR_NUMBER = "Think step by step, then give the answer as a number on the last line."
ASK_FOR_BOX = "Think step by step, then put the final answer into \\boxed{}."
# Languages that write 1.000 or 1 000 for a thousand.
POINTS = ("de", "es", "fr", "ru")
MGSM_LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")


def last_number(text: str) -> str:
    """The last number of a text without separators and trailing zeros, or nothing."""
    digits = re.sub(r"\d", lambda digit: str(unicodedata.decimal(digit[0])), text.replace("\N{MINUS SIGN}", "-"))
    numbers = NUMBER.findall(digits)
    if not numbers:
        return ""
    # A comma before fewer than three digits is a decimal one.
    number = re.sub(r",(?=\d{1,2}$)", ".", numbers[-1]).replace(",", "")
    return number.rstrip("0").rstrip(".") if "." in number else number


def last_number_behind_points(text: str) -> str:
    """As `last_number`, where points or spaces part thousands."""
    return last_number(re.sub(r"(?<=\d)[. \u00a0\u202f](?=\d{3}(?!\d))", "", text))


def last_box(text: str) -> str:
    """What stands in the last `\\boxed{}`, without what does not change its value; without a box, the whole text."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return simplify(text)
    depth, inside = 1, start + len("\\boxed{")
    for place in range(inside, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return simplify(text[inside:place])
    return simplify(text[inside:])


def simplify(formula: str) -> str:
    """Takes spacing, units, dollar signs and other spellings of the same out of a formula."""
    text = re.sub(r"\\text\s*\{([^{}]*)\}", r"\1", UNIT.sub("", formula.strip()))
    text = re.sub(r"\\[,;:! ]|\\left|\\right|\\\$|\$|\s|\^\\circ|\^\{\\circ\}|\\%|%", "", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    return re.sub(r"^(-?)\.", r"\g<1>0.", text.rstrip("."))


def _grade_school(row: SourceRow) -> Item:
    answer = row.text("answer")
    if "####" not in answer:
        raise row.error("the answer has no #### before the number")
    question = Message("user", f"{row.text('question')}\n\n{ASK_FOR_NUMBER}")
    worked = CALCULATION.sub("", answer)
    return Item(f"{row.number}", (question,), references=(_right(row, answer.rpartition("####")[2]),), worked=worked)


def _multilingual(row: SourceRow) -> Item:
    """Of the older files, a question and a number; of the newer ones, also the examples, which say what is what."""
    text, worked = row.text("question"), row.fields.get("answer")
    if "answer_number" in row.fields and isinstance(worked, str):
        text, worked = LEADING_WORDS.sub("", text), LEADING_WORDS.sub("", worked)
    question = Message("user", f"{text}\n\n{ASK_FOR_NUMBER}")
    right = _right(row, row.text("answer_number", "answer"))
    return Item(f"{row.number}", (question,), references=(right,), worked=str(worked))


def _right(row: SourceRow, answer: str) -> str:
    """The right answer, which is a number: without one, answers without a number would be right."""
    if not last_number(answer):
        raise row.error(f"the right answer, {answer.strip()[:60]!r}, has no number")
    return answer


def _competition(row: SourceRow) -> Item:
    # MATH-500 has the answer beside the solution, the whole set only in its box.
    answer = row.text("answer", "solution")
    if row.fields.get("answer") is None and "\\boxed{" not in answer:
        raise row.error("the solution has no \\boxed{} with the answer")
    question = Message("user", f"{row.text('problem')}\n\n{ASK_FOR_BOX}")
    return Item(
        f"{row.file.parent.name} {row.number}",
        (question,),
        references=(answer,),
        worked=str(row.fields.get("solution", "")),
        group=str(row.fields.get("type", "")),
    )


TASKS = (
    Task(
        name="gsm8k",
        ask=Generate(Sampling(max_tokens=512)),
        metrics=(exact_match(last_number),),
        rows=Rows(
            "question, and answer with the number behind ####",
            _grade_school,
            "openai/gsm8k",
            "main/test*",
            examples="main/train*",
        ),
    ),
    *(
        Task(
            name=f"mgsm_{language}",
            ask=Generate(Sampling(max_tokens=512)),
            metrics=(exact_match(last_number_behind_points if language in POINTS else last_number),),
            rows=Rows(
                "question, and answer_number or answer",
                _multilingual,
                "juletxara/mgsm",
                f"{language}/test*|*mgsm_{language}.tsv",
                ("question", "answer"),
                examples=f"{language}/train*",
            ),
        )
        for language in MGSM_LANGUAGES
    ),
    Task(
        name="math",
        ask=Generate(Sampling(max_tokens=1024)),
        metrics=(exact_match(last_box),),
        rows=Rows(
            "problem, and solution with the answer in \\boxed{}",
            _competition,
            "EleutherAI/hendrycks_math",
            "*test*",
            examples="*train*",
        ),
    ),
)
