"""Questions about pictures, charts and pages: MMMU, ChartQA, DocVQA, TextVQA, OCRBench."""

import ast
import re
from collections.abc import Sequence

from phi4.engine.sampling import Sampling
from phi4.eval.metrics import ANLS, CONTAINS, RELAXED_ACCURACY, VQA_ACCURACY, exact_match
from phi4.eval.rows import SourceRow
from phi4.eval.task import Generate, Item, Rows, Task
from phi4.processing.messages import Image, Message, Part, user_message

VISION = frozenset({"vision"})
SHORT = Generate(Sampling(max_tokens=64))
ASK_SHORTLY = "Answer the question with a single word or phrase."
ASK_FOR_LETTER = "Answer with the letter of the right choice."
LETTERS = "ABCDEFGHI"
# Of OCRBench, the part whose answers are LaTeX, in which spaces do not count.
HANDWRITTEN_FORMULAS = "HME100k"
PICTURE_MARK = re.compile(r"<image (\d)>")


def chosen_letter(text: str) -> str:
    """The letter behind "answer is", at the beginning, or in brackets; where there is none, the answer's words."""
    for pattern in (r"(?i:answer)\W*(?:is\b|:)[^\w\n]*([A-I])\b", r"^\W*([A-I])(?:[).:]|\W*$)", r"\(([A-I])\)"):
        if found := re.findall(pattern, text.strip()):
            return str(found[-1])
    return " ".join(text.lower().split()).rstrip(".")


def _interleaved(text: str, row: SourceRow) -> tuple[Part, ...]:
    """Puts pictures where `<image 1>` and the like stand."""
    parts: list[Part] = []
    for place, piece in enumerate(PICTURE_MARK.split(text)):
        # The numbers stand between the texts.
        parts.append(Image(row.medium(f"image_{piece}")) if place % 2 else piece)
    return tuple(part for part in parts if part != "")


def _exam(row: SourceRow) -> Item:
    options = _options(row)
    listed = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    text = f"{row.text('question')}{listed}\n\n{ASK_FOR_LETTER if options else ASK_SHORTLY}"
    answers = _open_answers(row.text("answer"))
    return Item(row.text("id"), (Message("user", _interleaved(text, row)),), references=answers)


def _options(row: SourceRow) -> Sequence[str]:
    """MMMU keeps the list as Python's text of it."""
    value = row.value("options")
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise row.error(f"options cannot be read: {error}") from error
    if not isinstance(value, list) or len(value) > len(LETTERS) or not all(isinstance(one, str) for one in value):
        raise row.error("options must be a list of at most nine texts")
    return value


def _open_answers(answer: str) -> tuple[str, ...]:
    """An open question may have several right answers, in Python's text of a list."""
    if answer.startswith("["):
        return tuple(map(str, ast.literal_eval(answer)))
    return (answer,)


def _chart(row: SourceRow) -> Item:
    # The authors' own files name a picture of the folder png beside them.
    is_named = "imgname" in row.fields
    picture = row.read_file(f"png/{row.text('imgname')}") if is_named else row.medium("image")
    question = user_message(f"{row.text('query')}\n{ASK_SHORTLY}", [picture])
    return Item(f"{row.number}", (question,), references=row.texts("label"))


def _page(row: SourceRow) -> Item:
    question = user_message(f"{row.text('question')}\n{ASK_SHORTLY}", [row.medium("image")])
    return Item(row.text("questionId"), (question,), references=row.texts("answers"))


def _scene(row: SourceRow) -> Item:
    question = user_message(f"{row.text('question')}\n{ASK_SHORTLY}", [row.medium("image")])
    return Item(row.text("question_id"), (question,), references=row.texts("answers"))


def _reading(row: SourceRow) -> Item:
    question = user_message(row.text("question"), [row.medium("image")])
    details = {"spaces": False} if row.fields.get("dataset") == HANDWRITTEN_FORMULAS else {}
    return Item(f"{row.number}", (question,), references=row.texts("answer"), details=details)


TASKS = (
    Task(
        "mmmu",
        SHORT,
        (exact_match(chosen_letter, "accuracy"),),
        Rows("id, question, options, answer, and image_1 to image_7", _exam, "MMMU/MMMU", "*validation*"),
        VISION,
    ),
    Task(
        "chartqa",
        SHORT,
        (RELAXED_ACCURACY,),
        Rows("query, label, and image or imgname", _chart, "HuggingFaceM4/ChartQA", "data/test*"),
        VISION,
    ),
    Task(
        "docvqa",
        SHORT,
        (ANLS,),
        Rows("questionId, question, answers and image", _page, "lmms-lab-encoder/DocVQA", "DocVQA/validation*"),
        VISION,
    ),
    Task(
        "textvqa",
        SHORT,
        (VQA_ACCURACY,),
        Rows("question_id, question, answers and image", _scene, "lmms-lab-encoder/textvqa", "data/validation*"),
        VISION,
    ),
    Task(
        "ocrbench",
        SHORT,
        (CONTAINS,),
        Rows("question, answer and image", _reading, "echo840/OCRBench", "data/test*"),
        VISION,
    ),
)
