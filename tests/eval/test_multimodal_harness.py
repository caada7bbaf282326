"""lmms-eval's classes of our models, and lmms-eval itself where it is installed."""

import abc
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest
import torch

from phi4.assistant import Assistant
from phi4.engine.sampling import Sampling
from phi4.engine.whole_pass import score
from phi4.errors import InputError
from phi4.processing.messages import Message, user_message

PICTURES = [PIL.Image.new("RGB", (60, 40), colour) for colour in ("red", "green", "blue")]
SOUND = {"array": np.sin(np.arange(8000) * 0.05), "sampling_rate": 16000}
SETTINGS = {"max_new_tokens": 6, "temperature": 0, "num_beams": 1, "image_aspect_ratio": "original"}
PLACE = ("task", "test")


class _StandIn(abc.ABC):
    """Stands in for `lmms_eval.api.model.lmms` 0.7.3 where that is missing: its abstract methods, no more."""

    is_simple = True

    def __init__(self) -> None:
        self.task_dict: dict[str, Any] = {}

    @abc.abstractmethod
    def loglikelihood(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until(self, requests: Any) -> Any: ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests: Any) -> Any: ...


@pytest.fixture(scope="module")
def classes() -> Iterator[Any]:
    """The module with our classes, on the real interface if it is there."""
    with pytest.MonkeyPatch.context() as patch:
        try:
            import lmms_eval.api.model  # noqa: F401
        except ImportError:
            for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"):
                patch.setitem(sys.modules, name, ModuleType(name))
            sys.modules["lmms_eval.api.model"].lmms = _StandIn  # type: ignore[attr-defined]
        import phi4.eval.multimodal_harness

        yield phi4.eval.multimodal_harness
        del sys.modules["phi4.eval.multimodal_harness"]


@pytest.fixture
def documents() -> dict[str, Any]:
    return {"task": {"test": [{"picture": picture} for picture in PICTURES]}}


def load(kind: Any, directory: Path, documents: Any) -> Any:
    model = kind(str(directory), device="cpu", dtype="float32", batch_size=1)
    model.task_dict = documents
    return model


def asked(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def test_questions_about_pictures_are_answered_as_the_assistant_does(
    classes: Any, tiny_directory: Path, documents: Any, assistant: Assistant
) -> None:
    def messages(document: Any) -> Any:
        picture = {"type": "image", "url": document["picture"]}
        return [{"role": "user", "content": [picture, {"type": "text", "text": "What?"}]}]

    expected = [assistant.ask("What?", images=[picture], sampling=Sampling(max_tokens=6)).text for picture in PICTURES]
    simple = load(classes.Phi4Simple, tiny_directory, documents)
    requests = [asked("What?", SETTINGS, lambda document: [document["picture"]], n, *PLACE) for n in range(3)]
    assert simple.generate_until(requests) == expected
    chat = load(classes.Phi4Chat, tiny_directory, documents)
    assert chat.generate_until([asked("", messages, SETTINGS, n, *PLACE) for n in range(3)]) == expected


def test_a_later_turn_is_written_when_the_answer_before_it_is_there(
    classes: Any, tiny_directory: Path, documents: Any, assistant: Assistant
) -> None:
    def messages(document: Any, round_idx: int = 0, previous_output: Any = (), previous_round_info: Any = None) -> Any:
        text = f"Round {round_idx} after {list(previous_output)}"
        turn = [{"role": "user", "content": [{"type": "text", "text": text}]}]
        return turn if round_idx == 0 else (turn, round_idx == 2, previous_output, round_idx)

    chat = load(classes.Phi4Chat, tiny_directory, documents)
    (answers,) = chat.generate_until_multi_round([asked("", messages, SETTINGS, 0, *PLACE)])
    first = assistant.ask("Round 0 after []", sampling=Sampling(max_tokens=6)).text
    second = assistant.ask(f"Round 1 after {[first]}", sampling=Sampling(max_tokens=6)).text
    assert answers == [first, second]


def test_the_smallest_score_is_that_of_the_most_probable_answer(
    classes: Any, tiny_directory: Path, documents: Any, assistant: Assistant
) -> None:
    simple = load(classes.Phi4Simple, tiny_directory, documents)
    choices = [" red", " green or so", lambda document: "blue"]
    requests = [asked("What?", choice, lambda document: [document["picture"]], 0, *PLACE) for choice in choices]
    scores = [one for one, _ in simple.loglikelihood([*requests, asked("", " red")])]
    prompt = assistant.processor.prepare([user_message("What?", [PICTURES[0]])])
    for found, text in zip(scores, ("red", "green or so", "blue"), strict=False):
        token_ids = assistant.processor.tokenizer.encode(text, allow_special=False)
        (logits,) = score(assistant.loaded.model, [replace(prompt, token_ids=(*prompt.token_ids, *token_ids))])
        places = range(len(prompt.token_ids) - 1, len(prompt.token_ids) + len(token_ids) - 1)
        expected = sum(
            float(logits[place].float().log_softmax(-1)[token]) for place, token in zip(places, token_ids, strict=True)
        )
        assert found == pytest.approx(-expected, abs=1e-3)
    assert scores[3] != scores[0]


def test_sounds_come_as_samples_as_files_and_as_decoders(
    classes: Any, tiny_directory: Path, assistant: Assistant, tmp_path: Path
) -> None:
    samples = torch.tensor(SOUND["array"], dtype=torch.float32)[None]
    decoder = SimpleNamespace(get_all_samples=lambda: SimpleNamespace(data=samples, sample_rate=16000))
    prepared = [assistant.processor.prepare([Message("user", (classes.read_medium(one),))]) for one in (SOUND, decoder)]
    assert prepared[0].token_ids == prepared[1].token_ids
    assert prepared[0].media[0].digest == prepared[1].media[0].digest
    assert classes.read_medium(str(tmp_path / "a.WAV")).modality == "speech"
    assert classes.read_medium({"path": "a.png"}).modality == "vision"
    for other in ("film.mp4", {"path": None}, 3):
        with pytest.raises(InputError, match="pictures and sounds, not"):
            classes.read_medium(other)


def test_what_a_class_cannot_do_names_the_other_one(classes: Any, tiny_directory: Path, documents: Any) -> None:
    with pytest.raises(InputError, match="with --force_simple"):
        load(classes.Phi4Chat, tiny_directory, documents).loglikelihood([])
    with pytest.raises(InputError, match="without --force_simple"):
        load(classes.Phi4Simple, tiny_directory, documents).generate_until_multi_round([])


def test_lmms_eval_runs_a_task_on_our_model(tiny_directory: Path, tmp_path: Path, assistant: Assistant) -> None:
    """Its own command, with a task in its own layout and our entry point."""
    pytest.importorskip("lmms_eval.models", reason="needs lmms-eval, which is installed by itself (docs/evaluation.md)")
    rows = [{"image": {"bytes": _png(picture), "path": None}, "question": "What?"} for picture in PICTURES]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "test.parquet")
    source = {"data_files": {"test": str(tmp_path / "test.parquet")}, "cache_dir": str(tmp_path / "cache")}
    fields = ["task: tiny_look", "dataset_path: parquet", f"dataset_kwargs: {json.dumps(source)}", "test_split: test"]
    fields += ["output_type: generate_until", "doc_to_visual: !function utils.see", 'doc_to_text: "{{question}}"']
    fields += ["doc_to_target: question", f"generation_kwargs: {json.dumps(SETTINGS)}"]
    (tmp_path / "tiny_look.yaml").write_text("\n".join([*fields, "metric_list: [{metric: exact_match}]"]))
    reading = "import io, PIL.Image\ndef see(row):\n    return [PIL.Image.open(io.BytesIO(row['image']['bytes']))]\n"
    (tmp_path / "utils.py").write_text(reading)
    command = [sys.executable, "-m", "lmms_eval", "--model", "phi4", "--include_path", str(tmp_path), "--log_samples"]
    command += ["--model_args", f"model={tiny_directory},device=cpu,dtype=float32", "--tasks", "tiny_look"]
    finished = subprocess.run([*command, "--output_path", str(tmp_path / "out")], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    (samples,) = (tmp_path / "out").rglob("*_samples_tiny_look.jsonl")
    found = [json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()]
    assert found == [assistant.ask("What?", images=[one], sampling=Sampling(max_tokens=6)).text for one in PICTURES]


def _png(picture: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
