"""What `phi4 verify` proves of the tiny checkpoint, and that it notices where a proof does not hold."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import phi4.verify
from data.samples import media_record, png, record, wav
from phi4.assistant import Assistant
from phi4.checkpoint.convert import convert
from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.fragments import added_fragment
from phi4.checkpoint.initialise import initialise
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.new_pack import write_new_pack
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.cli import main
from phi4.config import AdapterConfig
from phi4.data.shards import write_shards
from phi4.errors import CheckpointError, DataError, InputError
from phi4.modality import Modality
from phi4.model.linear import linear
from phi4.model.lora import AdaptedLinear
from phi4.processing.messages import Message, user_message
from phi4.text_logits import compare_logits
from phi4.verify import load_bare, memory_digest, verify

RunVerify = Callable[..., tuple[int, str, str]]

MEDIA = ("vision", "speech", "vision+speech")


@pytest.fixture(autouse=True)
def short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights rarely end an answer."""
    monkeypatch.setattr(phi4.verify, "MAX_ANSWER_TOKENS", 8)


@pytest.fixture(scope="module")
def split(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint as `base/`, `vision.safetensors` and `speech.safetensors`."""
    directory = tmp_path_factory.mktemp("verify") / "split"
    convert(tiny_directory, directory, "packs")
    return directory


@pytest.fixture(scope="module")
def packs(split: Path) -> list[Path]:
    return [split / "vision.safetensors", split / "speech.safetensors"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Test records of every kind: three pictures, two sounds, two with both, one of text; one to train on."""
    directory = tmp_path_factory.mktemp("verify") / "data"
    answer = Message("assistant", "Nothing.")
    pictures = [user_message("What is this?", images=[png(seed)]) for seed in range(3)]
    sounds = [user_message("Write it down.", sounds=[wav(seed)]) for seed in range(2)]
    looking = [record(f"look-{number}", one, answer, split="test", task="look") for number, one in enumerate(pictures)]
    hearing = [record(f"hear-{number}", one, answer, split="test", task="hear") for number, one in enumerate(sounds)]
    write_shards([*looking, record("seen", pictures[0], answer, task="look")], directory / "look")
    write_shards([*hearing, record("talk", split="test")], directory / "hear")
    write_shards([media_record(seed, split="test", task="both") for seed in range(2)], directory / "both")
    return directory


@pytest.fixture
def phi4_verify(capsys: pytest.CaptureFixture[str]) -> RunVerify:
    """Runs the command; returns exit status, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_info:
            main(["verify", "--device", "cpu", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(exit_info.value.code or 0), captured.out, captured.err

    return run


def with_packs(packs: Sequence[Path]) -> list[str]:
    return [f"--pack={pack}" for pack in packs]


def language(assistant: Assistant) -> nn.Module:
    return assistant.loaded.model.get_submodule("language")


def test_packs_leave_the_base_untouched(split: Path, packs: list[Path]) -> None:
    result = verify(split / "base", packs)
    assert result.passed
    assert [proof.largest_difference for proof in result.logits] == [0.0, 0.0, 0.0]
    assert len({proof.rows for proof in result.logits}) == 1
    assert all(media in result.logits[2].setting for media in MEDIA)
    assert result.media_difference is not None
    assert result.media_difference > 0.1
    # Everywhere it is one digest: in the files, in the packs, and twice in memory.
    assert {proof.found for proof in result.digests} == {result.base_digest}
    assert len(result.digests) == 4


def test_a_directory_with_its_modalities_inside_is_compared_with_its_language_model(
    tiny_directory: Path, split: Path
) -> None:
    result = verify(tiny_directory)
    assert result.passed
    assert result.base_digest == base_digest(open_checkpoint(split / "base").tensors)
    assert [proof.found for proof in result.digests] == [result.base_digest] * 2


def test_a_wider_dtype_holds_what_the_files_do_and_a_narrower_one_is_compared_with_memory(
    split: Path, packs: list[Path]
) -> None:
    for dtype, same in ((torch.float32, True), (torch.float16, False)):
        result = verify(split / "base", packs[:1], dtype=dtype)
        assert result.passed
        recorded, before, after = (proof.found for proof in result.digests)
        assert (recorded == before) == same
        assert before == after


@pytest.mark.parametrize("form", ["base", "whole"])
def test_the_bare_model_is_what_the_base_loads_as(tiny_directory: Path, split: Path, form: str) -> None:
    checkpoint = open_checkpoint(split / "base" if form == "base" else tiny_directory)
    bare, loaded = load_bare(checkpoint, torch.bfloat16).loaded, load_model(split / "base")
    assert type(bare.model) is type(loaded.model)
    assert bare.config.decoder == loaded.config.decoder
    state = loaded.model.state_dict()
    assert state.keys() == bare.model.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in bare.model.state_dict().items())


def test_answers_alone_are_those_together(split: Path, packs: list[Path], data: Path) -> None:
    reports: list[tuple[int, int]] = []
    result = verify(split / "base", packs, data, limit=2, progress=lambda *numbers: reports.append(numbers))
    assert result.passed
    found = {(proof.dataset, proof.task, proof.media): proof for proof in result.answers}
    kinds = [("look", "look", "vision"), ("hear", "hear", "speech"), ("hear", "chat", "text")]
    assert found.keys() == {*kinds, ("both", "both", "vision+speech")}
    assert all(found[kind].alone == found[kind].together for kind in kinds)
    joint = found["both", "both", "vision+speech"]
    assert joint.alone is None
    assert result.untested == ()
    assert (joint.together.records, found[kinds[0]].together.records) == (2, 2)
    # Two pictures, two sounds and a text, twice; both together once.
    assert reports == [(number, 12) for number in range(1, 13)]


def test_with_one_pack_its_own_records_are_answered_once(split: Path, packs: list[Path], data: Path) -> None:
    result = verify(split / "base", packs[1:], data)
    assert {proof.media: proof.alone is None for proof in result.answers} == {"speech": True, "text": False}
    assert result.skipped == {"both, both (vision+speech)": 2, "look, look (vision)": 3}
    assert result.untested == ()


@pytest.mark.parametrize(("left", "untested"), [("look", ("speech",)), ("both", ("vision", "speech"))])
def test_a_pack_without_test_records_of_its_own_is_named(
    split: Path, packs: list[Path], data: Path, tmp_path: Path, left: str, untested: tuple[str, ...]
) -> None:
    shutil.copytree(data / left, tmp_path / left)
    result = verify(split / "base", packs, tmp_path, limit=1)
    assert result.passed
    assert result.untested == untested


def test_without_data_no_pack_is_named(split: Path, packs: list[Path]) -> None:
    assert verify(split / "base", packs).untested == ()


def test_a_modality_from_outside_takes_part(split: Path, packs: list[Path], tmp_path: Path) -> None:
    sensor = Modality(
        name="sensor",
        read_config=lambda raw: raw["channels"],
        build_encoder=nn.Linear,
        prepare=lambda source, channels: source,
        count_tokens=lambda rows, channels: len(rows),
    )
    fragment = added_fragment({"channels": 3}, AdapterConfig(rank=4, alpha=8.0), 259)
    pack = tmp_path / "sensor.safetensors"
    write_new_pack(pack, open_checkpoint(split / "base"), "sensor", fragment, {}, modalities=[sensor])
    result = verify(split / "base", [*packs, pack], modalities=[sensor])
    assert result.passed
    assert result.logits[2].setting.endswith("vision+speech, sensor")


def test_a_pack_for_another_base_fails(
    split: Path, packs: list[Path], data: Path, tmp_path: Path, phi4_verify: RunVerify
) -> None:
    initialise("tiny", tmp_path / "other", seed=1)
    convert(tmp_path / "other", tmp_path / "foreign", "packs")
    foreign = tmp_path / "foreign" / "speech.safetensors"
    status, out, _ = phi4_verify(split / "base", *with_packs([packs[0], foreign]), "--data", data, "--json")
    report = json.loads(out)
    assert (status, report["passed"]) == (1, False)
    assert [proof["passed"] for proof in report["digests"]] == [True, False]
    assert str(foreign) in report["digests"][1]["place"]
    assert report["logits"] == report["answers"] == []
    status, out, _ = phi4_verify(split / "base", *with_packs([foreign]))
    assert status == 1
    assert "made for another base" in out


def test_a_base_whose_file_was_changed_fails(tiny_directory: Path, packs: list[Path], tmp_path: Path) -> None:
    convert(tiny_directory, tmp_path / "split", "packs")
    weights = tmp_path / "split" / "base" / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(weights).items()}
    tensors["model.norm.weight"][0] += 0.5
    save_file(tensors, weights, metadata={"format": "pt"})
    result = verify(tmp_path / "split" / "base", packs)
    assert not result.passed
    assert [proof.passed for proof in result.digests] == [False, False]


@pytest.mark.parametrize(("dtype", "change"), [(torch.bfloat16, 0.5), (torch.float32, 0.5), (torch.float32, 1e-5)])
def test_a_language_model_that_changed_in_memory_is_noticed(
    split: Path, packs: list[Path], dtype: torch.dtype, change: float
) -> None:
    resident = Assistant.load(split / "base", packs=packs, dtype=dtype, device="cpu")
    bare = load_bare(open_checkpoint(split / "base"), dtype)
    digest = base_digest(open_checkpoint(split / "base").tensors)
    assert memory_digest(resident.loaded, torch.bfloat16) == memory_digest(bare.loaded, torch.bfloat16) == digest
    language(resident).get_parameter("model.norm.weight")[0] += change
    assert memory_digest(resident.loaded, torch.bfloat16) != digest
    proofs, _ = compare_logits(resident, bare)
    assert not any(proof.passed for proof in proofs)
    assert all(proof.largest_difference > 0 for proof in proofs)


def test_an_adapter_that_reaches_its_neighbours_is_noticed(
    split: Path, packs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def adapt_everything(self: AdaptedLinear, hidden: torch.Tensor, runs: Sequence[Any]) -> torch.Tensor:
        output = linear(hidden, self.weight)
        for run in runs:
            output += self.lora_B[run.adapter](self.lora_A[run.adapter](hidden)) * self.scales[run.adapter]
        return output

    monkeypatch.setattr(AdaptedLinear, "forward", adapt_everything)
    result = verify(split / "base", packs)
    assert [proof.passed for proof in result.logits] == [True, True, False]
    assert not result.passed


def test_packs_that_change_each_others_answers_fail(
    split: Path, packs: list[Path], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_meddling(*arguments: Any) -> LoadedModel:
        """In company, the speech adapter is another."""
        loaded = load_model(*arguments)
        for name, parameter in loaded.model.named_parameters():
            if ".lora_B.speech." in name and "vision" in loaded.config.adapters:
                parameter *= -2
        return loaded

    monkeypatch.setattr(phi4.verify, "load_model", load_meddling)
    result = verify(split / "base", packs, data)
    assert {proof.media: proof.passed for proof in result.answers} == {
        "vision+speech": True,
        "vision": True,
        "speech": False,
        "text": True,
    }
    assert set(next(proof.different for proof in result.answers if not proof.passed)) <= {"hear-0", "hear-1"}
    assert not result.passed


def test_scores_that_are_no_numbers_are_refused(split: Path, packs: list[Path]) -> None:
    resident = Assistant.load(split / "base", packs=packs, dtype=torch.bfloat16, device="cpu")
    language(resident).get_parameter("model.norm.weight")[0] = torch.nan
    with pytest.raises(CheckpointError, match="not finite"):
        compare_logits(resident, load_bare(open_checkpoint(split / "base"), torch.bfloat16))


def test_the_command_prints_a_table_or_json(
    split: Path, packs: list[Path], data: Path, phi4_verify: RunVerify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    arguments = [split / "base", *with_packs(packs), "--data", data, "--limit", 1]
    status, out, _ = phi4_verify(*arguments)
    assert status == 0
    assert "The language model is untouched." in out
    assert "hear: chat" in out
    status, out, _ = phi4_verify(*arguments, "--json")
    report = json.loads(out)
    assert (status, report["passed"]) == (0, True)
    assert [proof["largest_difference"] for proof in report["logits"]] == [0.0, 0.0, 0.0]
    assert {proof["together"]["records"] for proof in report["answers"]} == {1}
    assert report["untested"] == []


def test_the_command_says_which_packs_answers_were_not_compared(
    split: Path, packs: list[Path], data: Path, tmp_path: Path, phi4_verify: RunVerify, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    shutil.copytree(data / "look", tmp_path / "look")
    arguments = [split / "base", *with_packs(packs), "--data", tmp_path, "--limit", 1]
    status, out, _ = phi4_verify(*arguments)
    assert status == 0
    assert "no test records for speech alone: its answers were not compared" in out
    assert "for vision alone" not in out
    status, out, _ = phi4_verify(*arguments, "--json")
    assert (status, json.loads(out)["untested"]) == (0, ["speech"])


def test_mistakes_end_with_status_2(split: Path, packs: list[Path], data: Path, phi4_verify: RunVerify) -> None:
    for arguments, message in (
        ([split / "base"], "bare language model"),
        ([split / "base", *with_packs(packs), "--limit", 0], "at least 1 record"),
        ([split / "base", *with_packs([split / "none.safetensors"])], "none.safetensors does not exist"),
        ([split / "base", *with_packs([packs[0], packs[0]])], "one pack for each modality"),
        ([split / "base", *with_packs(packs), "--data", split], "no test records"),
    ):
        status, out, err = phi4_verify(*arguments)
        assert (status, out) == (2, "")
        assert message in err


def test_records_that_the_model_cannot_take_at_all_are_no_proof(split: Path, packs: list[Path], tmp_path: Path) -> None:
    write_shards([media_record(1, split="test", task="both")], tmp_path / "both")
    with pytest.raises(DataError, match=r"none of the test records, both, both \(vision\+speech\)"):
        verify(split / "base", packs[:1], tmp_path)


def test_a_limit_below_one_is_refused(split: Path, packs: list[Path]) -> None:
    with pytest.raises(InputError, match="not 0"):
        verify(split / "base", packs, limit=0)
