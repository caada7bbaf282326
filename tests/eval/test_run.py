"""Evaluations: what is asked, what is kept, and how they go on."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from data.samples import png, record
from phi4.assistant import Assistant
from phi4.data.shards import write_shards
from phi4.engine.engine import Engine
from phi4.engine.request import Request
from phi4.engine.sampling import Sampling
from phi4.errors import DataError, InputError
from phi4.eval.ask import ask_items
from phi4.eval.families.held_out import read_held_out_tasks
from phi4.eval.items import RowItems, choose_indices, question_digest
from phi4.eval.language_metrics import import_library
from phi4.eval.likelihood import encode_continuation, encode_windows, score_continuations
from phi4.eval.metrics import exact_match
from phi4.eval.registry import TASKS, open_tasks
from phi4.eval.results import Results, read_results
from phi4.eval.rows import SourceRow
from phi4.eval.run import Progress, Settings, evaluate
from phi4.eval.task import Generate, Item, Rows, Task
from phi4.files import file_digest
from phi4.processing.messages import Image, Message, user_message

ENVIRONMENT = {"phi4": "x", "libraries": {"torch": "y"}, "kernels": None, "device": "cpu", "command": "phi4 eval"}


def question(row: SourceRow) -> Item:
    return Item(row.text("id"), (Message("user", row.text("q")),), references=(row.text("a"),))


ECHO = Task("echo", Generate(Sampling(max_tokens=4)), (exact_match(str.strip),), Rows("id, q and a", question))


def write_rows(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"id": f"r{number}", "q": f"Say {number}.", "a": str(number)} for number in range(count)]
    (folder / "echo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(
    assistant: Assistant,
    data: Path,
    out: Path,
    limit: int | None = None,
    name: str = "tiny",
    progress: Progress | None = None,
) -> Results:
    model = {"name": name, "packs": {}, "base_digest": "0" * 64, "dtype": "float32"}
    tasks = [(ECHO, RowItems.open(ECHO, data))]
    settings = Settings(limit)
    return evaluate(assistant, tasks, out, settings, model=model, environment=ENVIRONMENT, progress=progress)


def test_an_interrupted_evaluation_goes_on(assistant: Assistant, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", 5)
    whole = run(assistant, data, tmp_path / "whole")
    lines = (tmp_path / "whole" / "echo.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 5
    # Two answers were written, and a third one in part.
    (tmp_path / "cut").mkdir()
    kept = b"".join(lines[:2]).replace(b'"texts": ["', b'"texts": ["kept ')
    (tmp_path / "cut" / "echo.jsonl").write_bytes(kept + lines[2][:20])
    resumed = run(assistant, data, tmp_path / "cut")
    found = (tmp_path / "cut" / "echo.jsonl").read_bytes().splitlines(keepends=True)
    assert b"".join(found[:2]) == kept
    assert found[2:] == lines[2:]
    assert resumed.tasks["echo"].records == whole.tasks["echo"].records == 5
    assert read_results(tmp_path / "cut") == resumed


def test_progress_counts_what_is_answered_and_what_was_before(assistant: Assistant, tmp_path: Path) -> None:
    data, told = write_rows(tmp_path / "data", 3), list[tuple[int, int]]()
    for _ in range(2):
        run(assistant, data, tmp_path / "out", progress=lambda *numbers: told.append(numbers))
    assert told == [(1, 3), (2, 3), (3, 3)] * 2


def test_items_are_in_the_engine_together(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    submitted: list[Request] = []
    submit = Engine.submit
    monkeypatch.setattr(Engine, "submit", lambda engine, one: submitted.append(one) or submit(engine, one))
    items = [Item(f"{number}", (Message("user", f"Say {number}."),)) for number in range(3)]
    replies = ask_items(assistant, ECHO.ask, items)
    next(replies)
    assert len(submitted) == 3
    assert len(list(replies)) == 2


def test_an_item_that_does_not_fit_the_cache_is_named(tiny_directory: Path) -> None:
    assistant = Assistant.load(tiny_directory, dtype=torch.float32, device="cpu")
    assistant.__dict__["engine"] = Engine(assistant.loaded.model, (), cache_tokens=64)
    items = [Item(name, (Message("user", text),)) for name, text in (("short", "Hi."), ("long", "word " * 200))]
    with pytest.raises(DataError, match=r"items 'short' to 'long' cannot be answered: the conversation has"):
        list(ask_items(assistant, ECHO.ask, items))
    assert len(list(ask_items(assistant, ECHO.ask, items[:1]))) == 1


def test_results_hold_what_an_evaluation_is_repeated_with(assistant: Assistant, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", 2)
    result = run(assistant, data, tmp_path / "out", limit=1)
    task = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]["echo"]
    assert task["ask"]["kind"] == "Generate"
    assert (task["ask"]["sampling"]["max_tokens"], task["ask"]["sampling"]["temperature"]) == (4, 0.0)
    assert task["data"] == {"echo.jsonl": file_digest(data / "echo.jsonl")}
    assert (task["records"], task["all_records"]) == (1, 2)
    assert result.settings == {"limit": 1, "seed": 0}


def test_media_of_an_item_are_contents_of_files() -> None:
    with pytest.raises(DataError, match=r"a medium for vision as str; give the content of its file, as `row\.medium`"):
        question_digest(Item("i", (Message("user", (Image("a.png"), "What?")),)))


def test_answers_are_those_of_the_assistant_alone(assistant: Assistant, tmp_path: Path) -> None:
    run(assistant, write_rows(tmp_path / "data", 3), tmp_path / "out")
    answers = [json.loads(line) for line in (tmp_path / "out" / "echo.jsonl").read_text().splitlines()]
    for number, answer in enumerate(answers):
        alone = assistant.ask(f"Say {number}.", sampling=Sampling(max_tokens=4))
        assert answer["texts"] == [alone.text]


def test_a_folder_takes_one_model_and_one_limit(assistant: Assistant, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", 4)
    run(assistant, data, tmp_path / "out", limit=2)
    with pytest.raises(DataError, match=r"another evaluation, with limit 2, not 3: name another folder"):
        run(assistant, data, tmp_path / "out", limit=3)
    with pytest.raises(DataError, match="name 'tiny', not 'other'"):
        run(assistant, data, tmp_path / "out", limit=2, name="other")


def test_answers_to_other_questions_are_not_taken_over(assistant: Assistant, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "data", 2)
    run(assistant, data, tmp_path / "out")
    path = data / "echo.jsonl"
    path.write_text(path.read_text().replace("Say 1.", "Sing 1."))
    with pytest.raises(DataError, match="'r1' in the folder was given to another question"):
        run(assistant, data, tmp_path / "out")
    write_rows(data, 1)
    with pytest.raises(DataError, match="2 answers to echo, more than there are items"):
        run(assistant, data, tmp_path / "out")


def test_right_answers_that_a_metric_cannot_compare_name_their_item(assistant: Assistant, tmp_path: Path) -> None:
    def read(row: SourceRow) -> Item:
        return replace(question(row), references=(3,))  # type: ignore[arg-type]

    task = replace(ECHO, rows=Rows("id, q and a", read))
    items = RowItems.open(task, write_rows(tmp_path, 2))
    with pytest.raises(DataError, match=r"item 'r0' has right answers of another kind than exact match compares"):
        evaluate(
            assistant,
            [(task, items)],
            tmp_path / "out",
            Settings(),
            model=dict.fromkeys(("name", "base_digest", "dtype"), "x") | {"packs": {}},
            environment=ENVIRONMENT,
        )


def test_a_limit_draws_the_same_items_for_everybody() -> None:
    drawn = choose_indices(1000, 10, seed=3)
    assert drawn == choose_indices(1000, 10, seed=3) == sorted(set(drawn))
    assert drawn != choose_indices(1000, 10, seed=4)
    assert choose_indices(3, 10, seed=0) == [0, 1, 2]
    with pytest.raises(InputError, match="at least 1 item, not 0"):
        Settings(limit=0)


def test_a_modality_that_is_missing_is_said_before_anything_is_asked(tmp_path: Path, tiny_directory: Path) -> None:
    assistant = Assistant.load(tiny_directory, device="cpu")
    needs_smell = Task("smells", ECHO.ask, ECHO.metrics, ECHO.rows, frozenset({"smell"}))
    with pytest.raises(InputError, match="smells needs smell, which the model lacks"):
        evaluate(assistant, [(needs_smell, [])], tmp_path / "out", Settings(), model={}, environment={})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_library_that_is_missing_is_said_before_anything_is_asked(assistant: Assistant, tmp_path: Path) -> None:
    metric = replace(ECHO.metrics[0], check=partial(import_library, "no_such_library"))
    with pytest.raises(InputError, match=r"no_such_library, which is not installed: pip install 'phi4\[eval\]'"):
        evaluate(
            assistant,
            [(replace(ECHO, metrics=(metric,)), [])],
            tmp_path / "out",
            Settings(),
            model={},
            environment={},  # type: ignore[list-item]
        )
    assert not (tmp_path / "out").exists()


def test_stop_strings_end_answers(assistant: Assistant) -> None:
    item = Item("i", (Message("user", "Tell me."),))
    (whole,) = ask_items(assistant, Generate(Sampling(max_tokens=12)), [item])
    stop = whole.texts[0][3:5]
    (cut,) = ask_items(assistant, Generate(Sampling(max_tokens=12), stop=(stop,)), [item])
    assert cut.texts[0] == whole.texts[0][: whole.texts[0].index(stop)]


def test_several_answers_are_kept_apart(assistant: Assistant) -> None:
    ask = Generate(Sampling(max_tokens=6, temperature=1.0, seed=1, n=3))
    (reply,) = ask_items(assistant, ask, [Item("i", (Message("user", "Tell me."),))])
    assert len(set(reply.texts)) == 3


def test_a_continuation_is_as_probable_as_the_logits_say(assistant: Assistant) -> None:
    tokenizer = assistant.processor.tokenizer
    one = encode_continuation(tokenizer, "The capital of France is ", "Paris, I think", prefix_id=7)
    assert tokenizer.decode(one.scored) == " Paris, I think"
    (found,) = score_continuations(assistant.engine, [one])
    logits = assistant.logits([*one.context, *one.scored]).float().log_softmax(-1)
    places = torch.arange(len(one.context) - 1, len(one.context) + len(one.scored) - 1)
    assert found.log_likelihood == pytest.approx(float(logits[places, torch.tensor(one.scored)].sum()), abs=1e-3)
    assert found.is_greedy == bool((logits[places].argmax(-1) == torch.tensor(one.scored)).all())
    nothing_before = encode_continuation(tokenizer, "", "Paris", prefix_id=7)
    assert nothing_before.context == (7,)


def test_a_long_text_is_scored_once_in_every_place(assistant: Assistant) -> None:
    tokenizer = assistant.processor.tokenizer
    text = "one two three four five six seven"
    token_ids = tokenizer.encode(text, allow_special=False)
    for max_tokens in range(1, len(token_ids) + 2):
        windows = encode_windows(tokenizer, text, 7, max_tokens)
        assert [token_id for window in windows for token_id in window.scored] == token_ids
        assert windows[0].context == (7,)
        assert all(1 <= len(window.context) + len(window.scored) <= max_tokens + 1 for window in windows)


def test_held_out_records_become_tasks(assistant: Assistant, tmp_path: Path) -> None:
    picture = user_message("What?", [png(1)])
    records = [
        record("a", split="test"),
        record("p", picture, Message("assistant", "Noise."), split="test", task="look"),
    ]
    write_shards(records, tmp_path / "data" / "mixed")
    opened = open_tasks(["records"], tmp_path / "data")
    assert [task.name for task, _ in opened] == ["mixed.chat.text", "mixed.look.vision"]
    model = {"name": "tiny", "packs": {}, "base_digest": "0" * 64, "dtype": "float32"}
    results = evaluate(assistant, opened, tmp_path / "out", Settings(), model=model, environment=ENVIRONMENT)
    assert [result.records for result in results.tasks.values()] == [1, 1]
    manifest = file_digest(tmp_path / "data" / "mixed" / "manifest.json")
    assert [result.data["manifest"] for result in results.tasks.values()] == [manifest] * 2


def test_tasks_that_do_not_exist_are_named() -> None:
    with pytest.raises(InputError, match=r"there is no task gsm9k; there are gsm8k, .*records"):
        open_tasks(["gsm9k"], None)
    with pytest.raises(InputError, match="named twice"):
        open_tasks(["gsm8k", "gsm8k"], None)
    assert all(task.rows is not None and task.name == name for name, task in TASKS.items())


def test_answers_that_were_asked_for_otherwise_are_not_taken_over(
    assistant: Assistant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_rows(tmp_path / "data", 2)
    run(assistant, data, tmp_path / "out")
    monkeypatch.setitem(globals(), "ECHO", replace(ECHO, ask=Generate(Sampling(max_tokens=5))))
    with pytest.raises(DataError, match="answers to echo that were asked for with"):
        run(assistant, data, tmp_path / "out")


def test_any_task_of_records_has_a_file(tmp_path: Path) -> None:
    write_shards([record("a", split="test", task="qa/vision")], tmp_path / "set")
    assert read_held_out_tasks(tmp_path)[0][0].name == "set.qa%2Fvision.text"
