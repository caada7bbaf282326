"""Proves that the modalities added to a language model left it, and each other, untouched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from phi4.assistant import Assistant
from phi4.checkpoint.digest import base_digest, check_codes, named_digest
from phi4.checkpoint.keymap import empty_model, fixed_dtypes, modality_of
from phi4.checkpoint.layouts import Checkpoint, open_checkpoint
from phi4.checkpoint.packs import Pack, read_pack
from phi4.checkpoint.tensor_files import StoredTensor
from phi4.checkpoint.usual_dtype import stored_dtype, usual_dtype
from phi4.checkpoint.weights import LoadedModel, load_model
from phi4.config import ModelConfig
from phi4.errors import DataError, InputError
from phi4.modality import Modality
from phi4.processing.processor import Processor
from phi4.score import HeldOut, Score, answer_records, read_held_out, score_answers
from phi4.text_logits import LogitProof, compare_logits

# Called with the number of answers so far and in all.
Progress = Callable[[int, int], None]

MAX_ANSWER_TOKENS = 128


@dataclass(frozen=True)
class DigestProof:
    """The digest of the language model in one place.

    Attributes:
        place: the pack that recorded it, or "in memory", before or after everything that was run.
        expected: the digest that it must be.
        found: the digest that it is.
    """

    place: str
    expected: str
    found: str

    @property
    def passed(self) -> bool:
        """Whether they are equal."""
        return self.expected == self.found


@dataclass(frozen=True)
class AnswerProof:
    """Answers with every modality resident, compared with those of a model that has no pack but what they need.

    Attributes:
        dataset: name of the data set.
        task: of its test records.
        media: their modalities, such as "vision+speech"; for "text", the bare language model is the one alone.
        together: the score with every modality resident.
        alone: the score with no other pack, or None if no other is there.
        different: ids of the records whose answers differ.
    """

    dataset: str
    task: str
    media: str
    together: Score
    alone: Score | None
    different: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all answers are equal."""
        return not self.different


@dataclass(frozen=True)
class Verification:
    """What was proved about a model.

    Attributes:
        directory: the model's.
        base_digest: by which packs name the language model; that of its files, if they are not quantised.
        digests: all must be as expected; where a pack's is not, nothing else was tried.
        logits: none may differ.
        media_difference: the largest change that the adapters made to logits of media conversations. Unless it is 0,
            they were at work while the text beside them was compared; adapters that nothing trained yet do nothing.
        answers: none may differ.
        skipped: how many test records were left out because the model lacks a modality of theirs, by what they are.
        untested: modalities of the model of which the data hold no test record without another modality, so that no
            answer was compared that the modality gives alone; empty without data.
    """

    directory: Path
    base_digest: str
    digests: tuple[DigestProof, ...]
    logits: tuple[LogitProof, ...] = ()
    media_difference: float | None = None
    answers: tuple[AnswerProof, ...] = ()
    skipped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    untested: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every proof holds."""
        proofs: tuple[DigestProof | LogitProof | AnswerProof, ...] = (*self.digests, *self.logits, *self.answers)
        return all(proof.passed for proof in proofs)

    def to_json(self) -> dict[str, Any]:
        """The verification as `phi4 verify --json` prints it."""
        return {
            "passed": self.passed,
            "directory": str(self.directory),
            "base_digest": self.base_digest,
            "digests": [{**asdict(proof), "passed": proof.passed} for proof in self.digests],
            "logits": [{**asdict(proof), "passed": proof.passed} for proof in self.logits],
            "media_difference": self.media_difference,
            "answers": [{**asdict(proof), "passed": proof.passed} for proof in self.answers],
            "skipped": dict(self.skipped),
            "untested": list(self.untested),
        }


def verify(
    directory: Path,
    packs: Sequence[Path] = (),
    data: Path | None = None,
    limit: int = 50,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
    modalities: Sequence[Modality] = (),
    progress: Progress | None = None,
) -> Verification:
    """Compares a model that has modalities with its language model alone, and each pack alone with all together.

    Args:
        directory: a language model, or one with modalities inside.
        packs: files that add modalities to it.
        data: one folder of shards for each data set, whose test records are answered.
        limit: answer the first so many records of each task of a data set.
        dtype: of all weights; None takes `usual_dtype`.
        device: where to compute.
        modalities: those from outside the package that packs may be for.
        progress: told how many answers there are.

    Raises:
        ConfigError: a configuration file cannot be used.
        CheckpointError: a file is damaged, a pack does not fit, or the model's scores are not finite.
        DataError: the data cannot be used with this model.
        InputError: there is no modality, or `limit` is below 1.
    """
    if limit < 1:
        raise InputError(f"the limit must be at least 1 record, not {limit}")
    checkpoint = open_checkpoint(directory)
    chosen_dtype = dtype or usual_dtype(checkpoint, torch.device(device))
    source = _Source(directory, tuple(read_pack(path) for path in packs), tuple(modalities), chosen_dtype, device)
    if not source.packs and not checkpoint.config.adapters:
        raise InputError(f"{directory} is a bare language model, so there is nothing to compare; name packs for it")
    check_codes(checkpoint.config, checkpoint.tensors, str(directory))
    digest = named_digest(checkpoint.config, checkpoint.tensors)
    recorded = tuple(DigestProof(str(pack.path), digest, pack.base_digest) for pack in source.packs)
    if not all(proof.passed for proof in recorded):
        return Verification(directory, digest, recorded)
    tests = [] if data is None else read_held_out(data, limit)
    resident = source.load(frozenset(pack.modality for pack in source.packs))
    bare = load_bare(checkpoint, resident.loaded.model.dtype, device)
    stored = stored_dtype(checkpoint)
    expected, before = memory_digest(bare.loaded, stored), memory_digest(resident.loaded, stored)
    logits, media_difference = compare_logits(resident, bare)
    answers, skipped = _compare_answers(source, resident, bare, tests, progress)
    in_memory = (
        DigestProof("in memory before", expected, before),
        DigestProof("in memory after", expected, memory_digest(resident.loaded, stored)),
    )
    answered = {proof.media for proof in answers}
    untested = () if data is None else tuple(name for name in resident.loaded.config.adapters if name not in answered)
    digests = (*recorded, *in_memory)
    return Verification(directory, digest, digests, logits, media_difference, answers, skipped, untested)


def load_bare(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device | str = "cpu") -> Assistant:
    """Builds the language model of a checkpoint from its own tensors alone.

    Args:
        checkpoint: with modalities or without.
        dtype: of all weights.
        device: where they go.
    """
    config = ModelConfig(checkpoint.config.decoder, raw=checkpoint.config.raw)
    fixed = fixed_dtypes(checkpoint.config)
    state = {
        name.removeprefix("language."): tensor.read().to(device=device, dtype=fixed.get(name, dtype))
        for name, tensor in checkpoint.tensors.items()
        if modality_of(name) == "language"
    }
    model = empty_model(config)
    model.load_state_dict(state, assign=True)
    model.requires_grad_(False).eval()
    return _assistant(LoadedModel(model, config, checkpoint.generation, {}, checkpoint.directory))


def memory_digest(loaded: LoadedModel, stored: torch.dtype) -> str:
    """The base digest of a model in memory; it is that of its files if they hold the same values in one dtype.

    Args:
        loaded: the model.
        stored: dtype of the files. Weights that were made wider when they were loaded count as what they were, as long
            as they are still values of that dtype.
    """
    memory = _Memory({name: as_stored(tensor, stored) for name, tensor in loaded.model.state_dict().items()})
    return base_digest(
        {
            name: StoredTensor(loaded.directory, name, tensor.dtype, tuple(tensor.shape), memory)
            for name, tensor in memory.state.items()
        }
    )


def as_stored(tensor: torch.Tensor, stored: torch.dtype) -> torch.Tensor:
    """The same values in another dtype if it holds them exactly, else the tensor."""
    narrowed = tensor.to(stored)
    return narrowed if torch.equal(narrowed.to(tensor.dtype), tensor) else tensor


@dataclass(frozen=True)
class _Memory:
    """Tensors in memory, to be read as those of an open file are."""

    state: Mapping[str, torch.Tensor]

    def get_tensor(self, name: str) -> torch.Tensor:
        return self.state[name]


@dataclass(frozen=True)
class _Source:
    """Where a model comes from, to be loaded with some of its packs."""

    directory: Path
    packs: tuple[Pack, ...]
    modalities: tuple[Modality, ...]
    dtype: torch.dtype
    device: torch.device | str

    def load(self, wanted: frozenset[str]) -> Assistant:
        paths = [pack.path for pack in self.packs if pack.modality in wanted]
        return _assistant(load_model(self.directory, self.dtype, self.device, paths, self.modalities))

    def has_other_than(self, wanted: frozenset[str]) -> bool:
        """Whether records with these modalities, or with text alone, meet anything that they do not need."""
        return not wanted or any(pack.modality not in wanted for pack in self.packs)


def _assistant(loaded: LoadedModel) -> Assistant:
    return Assistant(loaded, Processor.load(loaded.directory, loaded.config, loaded.preprocessor))


def _compare_answers(
    source: _Source, resident: Assistant, bare: Assistant, tests: Sequence[HeldOut], progress: Progress | None
) -> tuple[tuple[AnswerProof, ...], dict[str, int]]:
    """Answers test records; returns the proofs, and how many records the model cannot take."""
    present = resident.loaded.config.adapters.keys()
    usable = [test for test in tests if test.modalities <= present]
    skipped = {f"{test.dataset}, {test.task} ({test.media})": len(test.records) for test in tests if test not in usable}
    if tests and not usable:
        raise DataError(f"the model takes none of the test records, {'; '.join(skipped)}: add packs for their media")
    total = sum(len(test.records) * (1 + source.has_other_than(test.modalities)) for test in usable)
    numbers = count(1)

    def report() -> None:
        if progress is not None:
            progress(next(numbers), total)

    proofs = []
    for modalities in dict.fromkeys(test.modalities for test in usable):
        # A model alone is in memory for its own tests only.
        alone = None
        if source.has_other_than(modalities):
            alone = source.load(modalities) if modalities else bare
        proofs += [_compare_test(test, resident, alone, report) for test in usable if test.modalities == modalities]
    return tuple(proofs), skipped


def _compare_test(
    test: HeldOut, resident: Assistant, alone: Assistant | None, report: Callable[[], None]
) -> AnswerProof:
    expected = [record.answer for record in test.records]
    together = _answers(resident, test, report)
    apart = together if alone is None else _answers(alone, test, report)
    differ = [index for index, answers in enumerate(zip(together, apart, strict=True)) if len(set(answers)) > 1]
    return AnswerProof(
        dataset=test.dataset,
        task=test.task,
        media=test.media,
        together=score_answers(expected, together),
        alone=None if alone is None else score_answers(expected, apart),
        different=tuple(test.records[index].id for index in differ),
    )


def _answers(assistant: Assistant, test: HeldOut, report: Callable[[], None]) -> list[str]:
    answers = [""] * len(test.records)
    for place, text in answer_records(assistant, test.records, MAX_ANSWER_TOKENS):
        answers[place] = text
        report()
    return answers
