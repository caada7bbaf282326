"""Examples before a question: which ones, in which form, and what is said where there are none."""

import json
from pathlib import Path
from typing import Any

import pytest

from phi4.assistant import Assistant
from phi4.errors import DataError, InputError
from phi4.eval.items import Items
from phi4.eval.registry import open_tasks
from phi4.eval.results import read_results
from phi4.eval.run import Settings, evaluate
from phi4.eval.task import Item

SUBJECTS = ("abstract_algebra", "anatomy")


def gsm8k(number: int) -> dict[str, Any]:
    right = number + 1
    return {
        "question": f"What is {number} + 1?",
        "answer": f"{number} + 1 = <<{number}+1={right}>>{right}\n#### {right}",
    }


def mmlu(subject: str, number: int) -> dict[str, Any]:
    return {"question": f"{number} + 1?", "subject": subject, "choices": ["1", "2", "3", "4"], "answer": number}


def write(path: Path, *rows: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def items_of(name: str, data: Path, shots: int) -> tuple[Items, list[Item]]:
    ((_, items),) = open_tasks([name], data, shots)
    return items, list(items.select(range(len(items))))


def test_conversations_get_worked_answers_as_turns(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k" / "main" / "test.jsonl", gsm8k(7))
    write(tmp_path / "gsm8k" / "main" / "train.jsonl", *map(gsm8k, range(5)))
    _, (bare,) = items_of("gsm8k", tmp_path, 0)
    items, (item,) = items_of("gsm8k", tmp_path, 2)
    assert [message.role for message in item.messages] == ["user", "assistant"] * 2 + ["user"]
    assert item.messages[-1:] == bare.messages
    assert str(item.messages[2].content).startswith("What is 1 + 1?")
    assert item.messages[3].content == "1 + 1 = 2\n#### 2"
    assert items.describe().keys() == {"test.jsonl", "train.jsonl"}


def test_mgsm_has_examples_that_say_what_is_what(tmp_path: Path) -> None:
    asked = {"question": "Wie viel ist 7: 1, 2 oder 8?", "answer": None, "answer_number": 8}
    shown = {"question": "Frage: Was ist 1 + 1?", "answer": "Schritt-für-Schritt-Antwort: 2.", "answer_number": 2}
    write(tmp_path / "mgsm_de" / "de" / "test.jsonl", asked)
    write(tmp_path / "mgsm_de" / "de" / "train.jsonl", shown)
    # Some revisions have these as well; they are the same questions.
    (tmp_path / "mgsm_de" / "mgsm_de.tsv").write_text("Wie viel?\t8\n")
    _, (item,) = items_of("mgsm_de", tmp_path, 1)
    texts = [str(message.content).partition("\n\n")[0] for message in item.messages]
    assert texts == ["Was ist 1 + 1?", "2.", "Wie viel ist 7: 1, 2 oder 8?"]
    assert item.references == ("8",)


def test_text_gets_the_first_examples_of_its_subject_behind_the_preface(tmp_path: Path) -> None:
    write(tmp_path / "mmlu" / "test.jsonl", *(mmlu(subject, 3) for subject in SUBJECTS))
    write(tmp_path / "mmlu" / "dev.jsonl", *(mmlu(subject, n) for subject in SUBJECTS for n in range(3)))
    _, (_, item) = items_of("mmlu", tmp_path, 2)
    listed = "A. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    assert item.context == (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        f"0 + 1?\n{listed} A\n\n1 + 1?\n{listed} B\n\n3 + 1?\n{listed}"
    )


def test_results_say_how_many_there_were(tmp_path: Path, assistant: Assistant) -> None:
    write(tmp_path / "mmlu" / "test.jsonl", mmlu("anatomy", 3))
    write(tmp_path / "mmlu" / "dev.jsonl", mmlu("anatomy", 0))
    model = {"name": "tiny", "packs": {}, "base_digest": "0" * 64, "dtype": "float32"}
    environment = {"phi4": "x", "libraries": {"torch": "y"}, "kernels": None, "device": "cpu", "command": ""}
    tasks = open_tasks(["mmlu"], tmp_path, 1)
    evaluate(assistant, tasks, tmp_path / "out", Settings(), model=model, environment=environment)
    assert read_results(tmp_path / "out").tasks["mmlu"].shots == 1
    assert "| mmlu (1-shot) | 1 | accuracy |" in (tmp_path / "out" / "results.md").read_text()
    tasks = open_tasks(["mmlu"], tmp_path, 0)
    with pytest.raises(DataError, match="was given to another question"):
        evaluate(assistant, tasks, tmp_path / "out", Settings(), model=model, environment=environment)


def test_where_there_are_no_examples_it_is_said(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k" / "test.jsonl", gsm8k(7))
    with pytest.raises(DataError, match=r"no file in .* fits 'main/train\*'"):
        open_tasks(["gsm8k"], tmp_path, 1)
    write(tmp_path / "gsm8k" / "train.jsonl", gsm8k(1))
    with pytest.raises(DataError, match=r"gsm8k: train.jsonl has 1 examples, not 2; ask for fewer shots"):
        open_tasks(["gsm8k"], tmp_path, 2)
    write(tmp_path / "mmlu.jsonl", mmlu("anatomy", 0))
    with pytest.raises(DataError, match=r"mmlu.jsonl is one file; the ones with 'all/dev\*'"):
        open_tasks(["mmlu"], tmp_path, 1)
    write(tmp_path / "perplexity.jsonl", {"text": "One."})
    with pytest.raises(InputError, match="perplexity has no examples to put before a question"):
        open_tasks(["perplexity"], tmp_path, 1)
    with pytest.raises(InputError, match="records have no examples"):
        open_tasks(["records"], tmp_path, 1)
    with pytest.raises(InputError, match="at least 0 examples, not -1"):
        open_tasks(["gsm8k"], tmp_path, -1)
    write(tmp_path / "other" / "mmlu" / "test.jsonl", mmlu("anatomy", 0))
    write(tmp_path / "other" / "mmlu" / "dev.jsonl", mmlu("abstract_algebra", 0))
    with pytest.raises(DataError, match="no examples of 'anatomy', which 'test 1' belongs to"):
        items_of("mmlu", tmp_path / "other", 1)
