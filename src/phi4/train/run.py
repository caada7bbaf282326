"""One stage from files to files: a base with packs and a folder of shards go in, packs or a language model come out."""

import hashlib
import json
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from phi4.checkpoint.digest import base_digest
from phi4.checkpoint.directories import write_json
from phi4.checkpoint.layouts import open_checkpoint
from phi4.checkpoint.packs import read_pack, save_pack, stages_of
from phi4.checkpoint.usual_dtype import stored_dtype, usual_dtype
from phi4.checkpoint.weights import LoadedModel, load_model, save_model
from phi4.data.batches import Batches, Encode
from phi4.data.example import Example, cut_into_runs, encode_example, encode_preference, encode_text
from phi4.data.record import Record
from phi4.data.shards import ShardedRecords
from phi4.errors import CapacityError, CheckpointError, ConfigError, DataError, InputError, TrainingError
from phi4.files import file_digest, new_directory
from phi4.json_file import read_json
from phi4.modality import Modality
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.processor import Processor
from phi4.train.distributed import Group, own_device, process_group
from phi4.train.interrupt import watch_signals
from phi4.train.log import RunLog
from phi4.train.objectives import build_objectives
from phi4.train.objectives.loss import first_medium
from phi4.train.parts import belongs_to, copy_parts, select_trained
from phi4.train.rounded_base import round_base
from phi4.train.stage import LANGUAGE, Answers, Contrastive, Ctc, Objective, Preference, Stage, Text
from phi4.train.trainer import Trainer

# The language model that a stage made, in the folder of its run; what it was trained on stands beside its weights.
MODEL_FOLDER = "model"
HISTORY_FILE = "training.json"


@dataclass(frozen=True)
class RunResult:
    """How a run ended. Of several processes, the first alone tells more than `step` and `interrupted`.

    Attributes:
        step: updates done.
        interrupted: number of the signal that ended it early, or None.
        packs: what was written, by modality; none if it ended early, or trained a language model.
        model: directory of the language model that was trained, or None.
        skipped: draws of records that could not be used, by data set and kind of error ("colours: InputError"). A
            record counts each time that it is drawn, in whatever process, since the run began or was resumed.
        first_skipped: up to three of these records, each with its data set and error.
    """

    step: int
    interrupted: int | None
    packs: Mapping[str, Path]
    model: Path | None = None
    skipped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    first_skipped: tuple[str, ...] = ()


def train_stage(
    stage: Stage,
    base: Path,
    packs: Sequence[Path],
    data: Path,
    run: Path,
    *,
    resume: bool = False,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    modalities: Sequence[Modality] = (),
    workers: int = 0,
    rounded_base: bool = False,
) -> RunResult:
    """Trains one stage and writes a pack for each modality of which something trained, or the language model.

    Args:
        stage: what to do.
        base: directory of the language model.
        packs: the modalities as they are before the stage.
        data: one folder of shards for each data set that the stage names.
        run: folder for checkpoints, logs and what was trained.
        resume: continue from the run's last checkpoint instead of refusing a folder that has one.
        device: where to compute.
        dtype: what the model computes in; None is `usual_dtype`. What is written has the type that the base is stored
            in, and the weights are values of it all along.
        modalities: those from outside, for packs that hold one.
        workers: processes that prepare examples ahead; 0 prepares each in its turn. The rows are the same.
        rounded_base: multiply with the frozen language model in 8 bits, on a CPU; see `phi4.train.rounded_base`.

    Returns:
        How far the run came and what it wrote.

    Raises:
        ConfigError: the stage names parts, data sets or modalities that are not there.
        DataError: shards are damaged or too many records cannot be used.
        TrainingError: the loss is not finite, a frozen weight changed, or the run is of another recipe or data set.
        CheckpointError: a checkpoint or the result cannot be written.
    """
    if not resume and ((run / "checkpoints").exists() or (run / MODEL_FOLDER).exists()):
        raise TrainingError(f"{run} holds a run already; continue it with --resume, or name another folder")
    run.mkdir(parents=True, exist_ok=True)
    with _one_thread_beside(workers):
        place = own_device(device)
        return _train(stage, base, packs, data, run, resume, place, dtype, modalities, workers, rounded_base)


def _train(
    stage: Stage,
    base: Path,
    packs: Sequence[Path],
    data: Path,
    run: Path,
    resume: bool,
    place: torch.device,
    dtype: torch.dtype | None,
    modalities: Sequence[Modality],
    workers: int,
    rounded_base: bool,
) -> RunResult:
    checkpoint = open_checkpoint(base)
    if checkpoint.config.decoder.quantisation is not None:
        raise ConfigError(
            f"{base} is quantised and has no gradients; train on the model it was made from: packs fit both"
        )
    loaded = load_model(base, dtype or usual_dtype(checkpoint, place), place, packs, modalities)
    if quantised := loaded.config.quantised_modalities:
        raise ConfigError(
            f"weights of {' and '.join(quantised)} have 8 bits and no gradients; train with the packs that they were "
            "made from"
        )
    if not isinstance(loaded.model, Phi4Multimodal) and LANGUAGE not in stage.trains:
        raise ConfigError(f"{base} has no modality to train; add packs, random ones from `phi4 new-pack` to begin with")
    pack_dtype = stored_dtype(checkpoint)
    datasets = {source.dataset: ShardedRecords.open(data / source.dataset) for source in stage.sources}
    identity = {
        "recipe": stage_digest(stage),
        "base": base_digest(checkpoint.tensors),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "packs": hashlib.sha256("".join(sorted(map(file_digest, packs))).encode()).hexdigest(),
        "data": data_digest(stage, data, datasets),
        "precision of products": "8 bits" if rounded_base else "exact",
    }
    # cuDNN plans the convolutions of every new shape, and each row has another one.
    with process_group(place) as group, torch.backends.cudnn.flags(enabled=False):
        trainer, changed = _prepare(stage, loaded, data, datasets, run, identity, pack_dtype, group, workers)
        if rounded_base:
            round_base(loaded.model)
        if resume:
            trainer.resume()
        interrupted = _run(trainer, stage, run, group)
        skipped, first_skipped = trainer.gather_skipped()
        trainer.check_frozen()
        if not group.is_first:
            return RunResult(trainer.step, interrupted, {})
        result = RunResult(trainer.step, interrupted, {}, skipped=skipped, first_skipped=first_skipped)
        if interrupted is not None:
            return result
        entry = _describe(stage, datasets, identity)
        with _result_in(run):
            if LANGUAGE in stage.trains:
                return replace(result, model=_write_model(loaded, run / MODEL_FOLDER, pack_dtype, entry))
            histories = {pack.modality: stages_of(pack.trained_on) for pack in map(read_pack, packs)}
            return replace(result, packs=_write_packs(loaded, changed, run, pack_dtype, histories, entry))


def stage_digest(stage: Stage) -> str:
    """SHA-256, hexadecimal, of all that decides a stage's result; how often it reports and saves does not."""
    ignored = {"about", "save_every", "valid_every", "valid_records", "augment"}
    fields = {key: repr(value) for key, value in vars(stage).items() if key not in ignored}
    augment = stage.augment
    fields["augment"] = "" if augment is None else f"{augment.__module__}.{getattr(augment, '__qualname__', '')}"
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def data_digest(stage: Stage, data: Path, datasets: Mapping[str, ShardedRecords]) -> str:
    """SHA-256, hexadecimal, of the stage's shards and of the guides that it imitates.

    Raises:
        DataError: there is no such guide.
    """
    guides = [source.objective.guide for source in stage.sources if isinstance(source.objective, Contrastive)]
    missing = [guide for guide in guides if guide and not (data / guide).is_file()]
    if missing:
        raise DataError(f"{data / missing[0]} is missing; stage {stage.name} imitates it: make it as the recipe says")
    digests = [records.digest for records in datasets.values()] + [
        file_digest(data / guide) for guide in guides if guide
    ]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _prepare(
    stage: Stage,
    loaded: LoadedModel,
    data: Path,
    datasets: Mapping[str, ShardedRecords],
    run: Path,
    identity: Mapping[str, str],
    pack_dtype: torch.dtype,
    group: Group,
    workers: int,
) -> tuple[Trainer, set[str]]:
    """Builds the trainer; returns it with the names of all parameters that will differ from the packs."""
    model = loaded.model
    processor = Processor.load(loaded.directory, loaded.config, loaded.preprocessor)
    encode = {
        source.dataset: _encoder(source.objective, loaded, processor, stage.tokens_per_row) for source in stage.sources
    }
    copied = copy_parts(model, stage.copies)
    trained = select_trained(model, stage.trains)
    training = {name: records.select("train") for name, records in datasets.items()}
    torch.manual_seed(stage.seed)
    objectives = build_objectives(stage, model, data, training, processor.tokenizer)
    for objective in objectives.values():
        objective.to(model.device)
    batches = Batches(
        training,
        {source.dataset: source.weight for source in stage.sources},
        encode,
        num_streams=stage.rows_per_step,
        tokens_per_row=stage.tokens_per_row,
        seed=stage.seed,
        augment=stage.augment,
        workers=workers,
        streams=range(group.rank, stage.rows_per_step, group.size),
    )
    valid = {
        name: _encode_all(records.select("valid").sample(stage.valid_records), encode[name], stage.tokens_per_row)
        for name, records in datasets.items()
    }
    trainer = Trainer(stage, model, trained, objectives, batches, valid, run, identity, pack_dtype, group)
    return trainer, copied | set(trained)


def _encoder(objective: Objective, loaded: LoadedModel, processor: Processor, tokens_per_row: int) -> Encode:
    """What makes examples of records for an objective; those that lack the medium that it is about are refused."""
    eos_token_ids = loaded.generation.eos_token_ids
    match objective:
        case Text():
            if not 2 <= tokens_per_row <= processor.max_tokens:
                raise ConfigError(
                    f"tokens_per_row is {tokens_per_row}; a row may hold a single text, which takes 2 tokens at least, "
                    f"and {processor.max_tokens} at most in this model's context"
                )
            begin, end = _document_tokens(loaded)
            return lambda record: encode_text(record, processor, begin, end)
        case Preference():
            encode: Encode = partial(encode_preference, processor=processor, eos_token_ids=eos_token_ids)
        case _:
            spelled = isinstance(objective, Answers) and objective.spelled
            encode = partial(encode_example, processor=processor, eos_token_ids=eos_token_ids, spelled=spelled)

    needed = {Contrastive: "vision", Ctc: getattr(objective, "modality", None)}.get(type(objective))

    def encode_supported(record: Record) -> Example:
        example = encode(record)
        loaded.model.adapter_for(example.inputs.modalities)  # refuses modalities that have no adapter together
        if needed is not None:
            first_medium(example, needed)
        return example

    return encode_supported


def _document_tokens(loaded: LoadedModel) -> tuple[int, int]:
    """The tokens that stand before and behind a text without a chat around it, `<|endoftext|>` in the release.

    Raises:
        ConfigError: config.json does not name them.
    """
    raw = loaded.config.raw
    begin, end = raw.get("bos_token_id"), raw.get("eos_token_id")
    if not isinstance(begin, int) or not isinstance(end, int):
        raise ConfigError(
            f"{loaded.directory}: config.json has bos_token_id {begin} and eos_token_id {end}; training on texts needs "
            "one token each, which stand before and behind a text"
        )
    return begin, end


def _encode_all(records: Iterable[Record], encode: Encode, tokens_per_row: int) -> list[Example]:
    """Encodes the records of a validation, whose mean must be over the same ones every time."""
    examples = []
    for record in records:
        try:
            examples += cut_into_runs(encode(record), tokens_per_row)
        except (InputError, CapacityError, DataError) as error:
            raise DataError(f"record {record.id!r} cannot be used for validation: {error}; leave it out") from error
    return examples


def _run(trainer: Trainer, stage: Stage, run: Path, group: Group) -> int | None:
    """Trains; returns the signal that ended it early, or None."""
    with watch_signals() as interrupt:
        if group.is_first:
            with RunLog(run, stage.name, stage.steps, trainer.step) as log:
                trainer.train(interrupt, log)
        else:
            trainer.train(interrupt, None)
        return None if trainer.step == stage.steps else interrupt.signal or signal.SIGTERM


@contextmanager
def _one_thread_beside(workers: int) -> Iterator[None]:
    """What is left to this process is small where others prepare the data: its threads would wait for their cores."""
    threads = torch.get_num_threads()
    if workers:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _result_in(run: Path) -> Iterator[None]:
    """Says what is left of a run whose result cannot be written."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"training is done, but its result could not be written to {run} ({error}); its checkpoints are whole: "
            "make room and resume"
        ) from error


def _write_packs(
    loaded: LoadedModel,
    changed: set[str],
    run: Path,
    dtype: torch.dtype,
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    entry: Mapping[str, Any],
) -> dict[str, Path]:
    """Writes a pack for each modality of which something changed; its history goes on with this stage."""
    model = loaded.model
    assert isinstance(model, Phi4Multimodal)
    written = {}
    for modality in loaded.config.adapters:
        if any(belongs_to(name, modality) or belongs_to(name, f"{modality}.adapter") for name in changed):
            path = run / f"{modality}.safetensors"
            stages = [*histories.get(modality, ()), entry]
            save_pack(model, modality, path, dtype, entry["base"], {"stages": stages}, loaded.preprocessor)
            written[modality] = path
    return written


def _write_model(loaded: LoadedModel, directory: Path, dtype: torch.dtype, entry: Mapping[str, Any]) -> Path:
    """Writes a trained language model with its history, unless this very run did so before.

    Raises:
        CheckpointError: another model is there.
    """
    stages = [*_model_history(loaded.directory), entry]
    if _model_history(directory) == stages:
        return directory
    with new_directory(directory) as partial_directory:
        save_model(
            loaded.model,
            loaded.config,
            partial_directory,
            companions=loaded.directory,
            generation=loaded.generation,
            dtype=dtype,
        )
        write_json(partial_directory / HISTORY_FILE, {"stages": stages})
    return directory


def _model_history(directory: Path) -> list[dict[str, Any]]:
    path = directory / HISTORY_FILE
    return stages_of(read_json(path)) if path.is_file() else []


def _describe(stage: Stage, datasets: Mapping[str, ShardedRecords], identity: Mapping[str, str]) -> dict[str, Any]:
    """What a pack or a model says about how it came to be: the stage, its data and their licences."""
    sources = {name: records.training_sources for name, records in datasets.items()}
    return {"stage": stage.name, "steps": stage.steps, "trains": list(stage.trains), "sources": sources, **identity}
