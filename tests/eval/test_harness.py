"""lm-evaluation-harness runs our models, and its numbers are ours."""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from phi4.assistant import Assistant
from phi4.engine.sampling import Sampling
from phi4.eval.registry import open_tasks
from phi4.eval.results import Results
from phi4.eval.run import Settings, evaluate
from server.process import Process

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ARC = [
    ("What can fly?", ["a dog", "a bird that is called a sparrow", "fish"], 1),
    ("What falls from clouds?", ["rain", "stones and sand", "cats"], 0),
    ("What is hot?", ["ice", "snow in the mountains", "the sun"], 2),
    ("What is 2 + 2?", ["3", "4", "a hundred and five"], 1),
]
ROWS = {
    "arc": [
        {"id": str(n), "question": q, "choices": {"text": c, "label": list("ABC")}, "answerKey": "ABC"[right]}
        for n, (q, c, right) in enumerate(ARC)
    ],
    "hellaswag": [
        {
            "ind": n,
            "activity_label": "Cooking",
            "ctx_a": "A man stirs [header] a pot.",
            "ctx_b": f"he number {n}",
            "endings": ["eats [substeps] soup.", "flies [title] away and away.", " is a pot.", "sings."],
            "label": str(n),
        }
        for n in range(4)
    ],
    "mmlu": [
        {"question": f" {n} + 1?", "subject": "abstract_algebra", "choices": ["1", "2", "3", "4"], "answer": n}
        for n in range(4)
    ],
}
TEXTS = ["The lighthouse stood on the cliff,\nand its light went round.", "One two  three."]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Rows for us, and the same as tasks of the harness."""
    rows = ROWS["arc"]
    (tmp_path / "arc_easy.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "perplexity.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    write_task(
        tmp_path,
        "tiny_arc",
        "arc_easy.jsonl",
        {
            "output_type": "multiple_choice",
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "doc_to_target": "{{choices.label.index(answerKey)}}",
            "doc_to_choice": "{{choices.text}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
    )
    write_task(
        tmp_path,
        "tiny_prose",
        "perplexity.jsonl",
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        },
    )
    write_task(
        tmp_path,
        "tiny_ask",
        "arc_easy.jsonl",
        {
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": "x",
            "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 5, "do_sample": False},
            "metric_list": [{"metric": "exact_match"}],
        },
    )
    return tmp_path


def write_task(folder: Path, name: str, file: str, fields: Mapping[str, Any]) -> None:
    """JSON is YAML too."""
    source = {"data_files": {"test": str(folder / file)}, "cache_dir": str(folder / "cache")}
    task = {"task": name, "dataset_path": "json", "dataset_kwargs": source, "test_split": "test", **fields}
    (folder / f"{name}.yaml").write_text(json.dumps(task))


def run_harness(model: Any, data: Path, task: str, **options: Any) -> Any:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(data), include_defaults=False)
    return simple_evaluate(model=model, tasks=[task], task_manager=manager, bootstrap_iters=0, **options)


@pytest.fixture(scope="module")
def model(tiny_directory: Path) -> Any:
    from lm_eval.api.registry import get_model

    import phi4.eval.harness  # noqa: F401

    return get_model("phi4").create_from_arg_string(
        f"model={tiny_directory},device=cpu,dtype=float32", {"batch_size": 1}
    )


def run_ours(model: Any, data: Path, task: str, out: Path, shots: int = 0) -> Results:
    described = {"name": "tiny", "packs": {}, "base_digest": "0" * 64, "dtype": "float32"}
    environment = {"phi4": "x", "libraries": {"torch": "y"}, "kernels": None, "device": "cpu", "command": ""}
    tasks = open_tasks([task], data, shots)
    return evaluate(model.assistant, tasks, out, Settings(), model=described, environment=environment)


def test_choices_have_the_same_log_likelihoods_and_scores(model: Any, data: Path) -> None:
    theirs = run_harness(model, data, "tiny_arc", log_samples=True)
    ours = run_ours(model, data, "arc_easy", data / "out").tasks["arc_easy"]
    answers = [json.loads(line) for line in (data / "out" / "arc_easy.jsonl").read_text().splitlines()]
    for sample in theirs["samples"]["tiny_arc"]:
        found = [float(response[0]) for response in sample["filtered_resps"]]
        # Without native kernels rounding depends on company.
        assert found == pytest.approx(answers[sample["doc_id"]]["log_likelihoods"], abs=1e-4)
    accuracy, by_length = (metric.estimate.value for metric in ours.metrics)
    assert theirs["results"]["tiny_arc"]["acc,none"] == accuracy
    assert theirs["results"]["tiny_arc"]["acc_norm,none"] == by_length


@pytest.mark.parametrize(
    ("ours", "definition", "rows", "names"),
    [
        ("arc_easy", "arc/arc_easy.yaml", "arc", ("acc", "acc_norm")),
        ("hellaswag", "hellaswag/hellaswag.yaml", "hellaswag", ("acc_norm", "acc")),
        ("mmlu", "mmlu/default/mmlu_abstract_algebra.yaml", "mmlu", ("acc",)),
    ],
)
def test_the_harness_own_definitions_ask_the_same(
    model: Any, data: Path, ours: str, definition: str, rows: str, names: tuple[str, ...]
) -> None:
    import lm_eval.tasks

    (data / f"{ours}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[rows]))
    splits = {"training_split": None, "validation_split": None, "fewshot_split": None, "dataset_name": None}
    own = Path(lm_eval.tasks.__file__).parent / definition
    write_task(data, "theirs", f"{ours}.jsonl", {"include": str(own), **splits})
    theirs = run_harness(model, data, "theirs", log_samples=True)
    found = run_ours(model, data, ours, data / "out").tasks[ours]
    answers = [json.loads(line) for line in (data / "out" / f"{ours}.jsonl").read_text().splitlines()]
    for sample in theirs["samples"]["theirs"]:
        log_likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
        assert log_likelihoods == pytest.approx(answers[sample["doc_id"]]["log_likelihoods"], abs=1e-4)
    assert [theirs["results"]["theirs"][f"{name},none"] for name in names] == [
        metric.estimate.value for metric in found.metrics
    ]


@pytest.mark.parametrize(
    ("ours", "definition", "split"),
    [
        ("arc_easy", "arc/arc_easy.yaml", "train"),
        ("hellaswag", "hellaswag/hellaswag.yaml", "train"),
        ("mmlu", "mmlu/default/mmlu_abstract_algebra.yaml", "dev"),
    ],
)
def test_examples_are_those_of_the_harness_where_it_takes_the_first(
    model: Any, tmp_path: Path, ours: str, definition: str, split: str
) -> None:
    """It takes the first of MMLU's `dev` by itself; for the others, whose examples it draws, a task tells it to."""
    import lm_eval.tasks

    rows, asked = ROWS[ours.removesuffix("_easy")], "validation" if ours == "hellaswag" else "test"
    for name, own in ((split, rows[:3]), (asked, rows[3:])):
        path = tmp_path / ours / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in own))
    files = {name: str(tmp_path / ours / f"{name}.jsonl") for name in (split, asked)}
    fields = {
        "include": str(Path(lm_eval.tasks.__file__).parent / definition),
        "task": "theirs",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(tmp_path / "cache")},
        "training_split": None,
        "validation_split": None,
        "test_split": asked,
        "fewshot_split": split,
        "fewshot_config": {"sampler": "first_n"},
    }
    (tmp_path / "theirs.yaml").write_text(json.dumps(fields))
    theirs = run_harness(model, tmp_path, "theirs", num_fewshot=3, log_samples=True)
    run_ours(model, tmp_path, ours, tmp_path / "out", shots=3)
    answers = [json.loads(line) for line in (tmp_path / "out" / f"{ours}.jsonl").read_text().splitlines()]
    for sample in theirs["samples"]["theirs"]:
        log_likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
        assert log_likelihoods == pytest.approx(answers[sample["doc_id"]]["log_likelihoods"], abs=1e-4)


def test_perplexities_are_the_same(model: Any, data: Path) -> None:
    theirs = run_harness(model, data, "tiny_prose")["results"]["tiny_prose"]
    ours = run_ours(model, data, "perplexity", data / "out").tasks["perplexity"]
    words, bits = (metric.estimate.value for metric in ours.metrics)
    assert theirs["word_perplexity,none"] == pytest.approx(words, rel=1e-9)
    assert theirs["bits_per_byte,none"] == pytest.approx(bits, rel=1e-9)


def test_answers_in_the_chat_layout_are_the_assistants(model: Any, data: Path) -> None:
    theirs = run_harness(model, data, "tiny_ask", log_samples=True, apply_chat_template=True)
    assistant: Assistant = model.assistant
    for sample in theirs["samples"]["tiny_ask"]:
        question = ARC[sample["doc_id"]][0]
        answer = assistant.ask(question, sampling=Sampling(max_tokens=5), stop=["\n\n"])
        assert sample["resps"][0][0] == answer.text


@pytest.fixture(scope="module")
def served(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`phi4 serve` as a process of its own, and its address."""
    server = Process(tiny_directory, tmp_path_factory.mktemp("served") / "log")
    yield f"http://127.0.0.1:{server.port}"
    server.process.kill()
    server.process.wait()


@pytest.mark.parametrize("options", ["batch_size=1", "batch_size=8", "num_concurrent=4"])
def test_choices_and_texts_are_the_same_through_the_server(model: Any, data: Path, served: str, options: str) -> None:
    arguments = f"model=tiny,base_url={served}/v1/completions,max_length=4096,{options}"
    for task in ("tiny_arc", "tiny_prose"):
        theirs = run_harness("local-completions", data, task, model_args=arguments, log_samples=True)
        ours = run_harness(model, data, task, log_samples=True)
        for name, value in ours["results"][task].items():
            if isinstance(value, float):
                assert theirs["results"][task][name] == pytest.approx(value, rel=1e-5)
        for one, other in zip(theirs["samples"][task], ours["samples"][task], strict=True):
            assert one["doc_id"] == other["doc_id"]
            # Log-likelihood and whether it was greedy, or the log-likelihood alone.
            for found, expected in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
                assert numbers(found) == pytest.approx(numbers(expected), abs=1e-4)


def numbers(response: Any) -> list[float]:
    return [float(one) for one in response] if isinstance(response, tuple | list) else [float(response)]


@pytest.mark.parametrize(("path", "chat"), [("completions", False), ("chat/completions", True)])
def test_answers_are_the_same_through_the_server(model: Any, data: Path, served: str, path: str, chat: bool) -> None:
    name = f"local-{path.replace('/', '-')}"
    arguments = f"model=tiny,base_url={served}/v1/{path}"
    ours = run_harness(model, data, "tiny_ask", log_samples=True, apply_chat_template=chat)
    theirs = run_harness(name, data, "tiny_ask", model_args=arguments, log_samples=True, apply_chat_template=chat)
    for one, other in zip(theirs["samples"]["tiny_ask"], ours["samples"]["tiny_ask"], strict=True):
        assert one["resps"] == other["resps"]


def test_the_command_is_the_harness_own_with_our_model(
    tiny_directory: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from phi4.eval.harness import main

    options = ["--model", "phi4", "--model_args", f"model={tiny_directory}", "--tasks", "tiny_prose"]
    monkeypatch.setattr(sys, "argv", ["phi4-lm-eval", *options, "--include_path", str(data)])
    main()
    assert "bits_per_byte" in capsys.readouterr().out
