"""Instructions that a program can check, in IFEval's layout (arXiv 2311.07911)."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from phi4.engine.sampling import Sampling
from phi4.eval.language_metrics import import_library
from phi4.eval.rows import SourceRow
from phi4.eval.task import Generate, Item, Metric, Reply, Rows, Task
from phi4.processing.messages import Message

# The text of an answer and the arguments of the instruction → whether it was followed.
Check = Callable[[str, Mapping[str, Any]], bool]


def _compare(count: int, relation: str | None, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _sentences(text: str) -> list[str]:
    return [sentence for sentence in re.split(r"(?<=[.!?])\s+", text.strip()) if sentence]


def _paragraphs(text: str) -> list[str]:
    """Parts between lines of ***; an empty one at either end does not count."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    return parts[not parts[0] : len(parts) - (not parts[-1])] if len(parts) > 1 else parts


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.IGNORECASE))


def _keyword_frequency(text: str, given: Mapping[str, Any]) -> bool:
    return _compare(_count(re.escape(given["keyword"]), text), given["relation"], given["frequency"])


def _letter_frequency(text: str, given: Mapping[str, Any]) -> bool:
    return _compare(text.lower().count(given["letter"].lower()), given["let_relation"], given["let_frequency"])


def _nth_paragraph(text: str, given: Mapping[str, Any]) -> bool:
    paragraphs = [part.strip() for part in re.split(r"\n\n", text) if part.strip()]
    place = given["nth_paragraph"] - 1
    if len(paragraphs) != given["num_paragraphs"] or not 0 <= place < len(paragraphs):
        return False
    first = re.split("[.,?!'\"]", paragraphs[place].split()[0].lstrip("'").lstrip('"'))[0].lower()
    return first == given["first_word"].lower()


def _postscript(text: str, given: Mapping[str, Any]) -> bool:
    marker = str(given["postscript_marker"]).lower()
    letters = {"p.p.s": r"p\.\s?p\.\s?s", "p.s.": r"p\.\s?s\."}.get(marker, re.escape(marker))
    return re.search(rf"\s*{letters}.*$", text.lower(), re.MULTILINE) is not None


def _sections(text: str, given: Mapping[str, Any]) -> bool:
    marker = re.escape(str(given["section_spliter"]).strip())
    # In the case that was asked for, unlike keywords.
    return len(re.findall(rf"\s?{marker}\s?\d+\s?", text)) >= given["num_sections"]


def _highlights(text: str, given: Mapping[str, Any]) -> bool:
    found = re.findall(r"\*([^\n*]*)\*", text) + re.findall(r"\*\*([^\n*]*)\*\*", text)
    return sum(bool(inside.strip()) for inside in found) >= given["num_highlights"]


def _json(text: str, _: Mapping[str, Any]) -> bool:
    bare = re.sub(r"^```(?:json)?|```$", "", text.strip(), flags=re.IGNORECASE).strip()
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str, _: Mapping[str, Any]) -> bool:
    parts = [part.strip() for part in text.split("******")]
    filled = [part for part in parts if part]
    return len(filled) == 2 and filled[0] != filled[1] and all(parts[1:-1])


def _repeats_prompt(text: str, given: Mapping[str, Any]) -> bool:
    return text.strip().lower().startswith(str(given["prompt_to_repeat"]).strip().lower())


def _language(text: str, given: Mapping[str, Any]) -> bool:
    langdetect = import_library("langdetect")
    langdetect.DetectorFactory.seed = 0
    try:
        return bool(langdetect.detect(text) == given["language"])
    except langdetect.LangDetectException:  # a text without letters speaks every language
        return True


def _capital_words(text: str, given: Mapping[str, Any]) -> bool:
    capitals = [word for word in _words(text) if word.isupper()]
    return _compare(len(capitals), given["capital_relation"], given["capital_frequency"])


CHECKS: dict[str, Check] = {
    "keywords:existence": lambda text, given: all(_count(re.escape(word), text) for word in given["keywords"]),
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": lambda text, given: (
        not any(_count(rf"\b{re.escape(word)}\b", text) for word in given["forbidden_words"])
    ),
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:number_sentences": lambda text, given: _compare(
        len(_sentences(text)), given["relation"], given["num_sentences"]
    ),
    "length_constraints:number_paragraphs": lambda text, given: (
        all(_paragraphs(text)) and len(_paragraphs(text)) == given["num_paragraphs"]
    ),
    "length_constraints:number_words": lambda text, given: _compare(
        len(_words(text)), given["relation"], given["num_words"]
    ),
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": lambda text, given: (
        len(re.findall(r"\[.*?\]", text)) >= given["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": lambda text, given: (
        len(re.findall(r"^\s*(?:\*[^*]|-).*$", text, re.MULTILINE)) == given["num_bullets"]
    ),
    "detectable_format:constrained_response": lambda text, _: any(
        f"My answer is {answer}." in text for answer in ("yes", "no", "maybe")
    ),
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": lambda text, _: any(title.strip() for title in re.findall(r"<<([^\n]+?)>>", text)),
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats_prompt,
    "startend:end_checker": lambda text, given: (
        text.strip().strip('"').lower().endswith(str(given["end_phrase"]).strip().lower())
    ),
    "startend:quotation": lambda text, _: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": lambda text, _: text.isupper() and _language(text, {"language": "en"}),
    "change_case:english_lowercase": lambda text, _: text.islower() and _language(text, {"language": "en"}),
    "punctuation:no_comma": lambda text, _: "," not in text,
}


def follows(text: str, instructions: Sequence[str], arguments: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Which instructions an answer follows; one of white space follows none."""
    return [
        bool(text.strip()) and CHECKS[instruction](text, given)
        for instruction, given in zip(instructions, arguments, strict=True)
    ]


def _of(item: Item, reply: Reply) -> list[bool]:
    return follows(reply.texts[0], item.details["instructions"], item.details["arguments"])


def _all_followed(item: Item, reply: Reply) -> Sequence[float]:
    return (float(all(_of(item, reply))), 1.0)


def _followed(item: Item, reply: Reply) -> Sequence[float]:
    followed = _of(item, reply)
    return (float(sum(followed)), float(len(followed)))


def _read(row: SourceRow) -> Item:
    instructions, arguments = row.texts("instruction_id_list"), row.value("kwargs")
    unknown = [name for name in instructions if name not in CHECKS]
    if unknown:
        raise row.error(f"nobody knows how to check {unknown[0]!r}; known are {', '.join(CHECKS)}")
    if not isinstance(arguments, list) or len(arguments) != len(instructions):
        raise row.error("kwargs must be a list with one object for each instruction")
    try:
        follows("x", instructions, arguments)
    except (KeyError, TypeError) as error:
        raise row.error(f"kwargs lack what the instructions need: {error!r}") from error
    details = {"instructions": list(instructions), "arguments": arguments}
    return Item(row.text("key"), (Message("user", row.text("prompt")),), details=details)


TASKS = (
    Task(
        name="ifeval",
        ask=Generate(Sampling(max_tokens=1024)),
        metrics=(
            Metric("prompts followed", _all_followed, check=partial(import_library, "langdetect")),
            Metric("instructions followed", _followed, check=partial(import_library, "langdetect")),
        ),
        rows=Rows(
            "key, prompt, instruction_id_list and kwargs",
            _read,
            "google/IFEval",
            "*ifeval_input_data.jsonl",
        ),
    ),
)
