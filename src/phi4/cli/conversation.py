"""Commands that talk to a model: ask, chat, transcribe."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from phi4.cli.options import (
    Bare,
    CacheDtype,
    CacheDtypeOption,
    CacheTokens,
    DeviceOption,
    Dtype,
    DtypeOption,
    Json,
    MaxTokens,
    MinP,
    Model,
    Packs,
    RepetitionPenalty,
    Seed,
    System,
    Temperature,
    TopK,
    TopP,
    print_json,
)
from phi4.errors import InputError, Phi4Error

if TYPE_CHECKING:
    from phi4.assistant import Assistant


def load(
    model: str,
    packs: list[Path] | None,
    bare: bool,
    dtype: Dtype | None,
    device: Any,
    cache_dtype: CacheDtype,
    cache_tokens: int | None = None,
) -> "Assistant":
    """Loads a model for a command; torch is imported here, when it is needed."""
    import torch

    from phi4.assistant import Assistant

    return Assistant.load(
        model,
        packs=named_packs(model, packs, bare),
        dtype=getattr(torch, dtype) if dtype else None,
        device=device,
        cache_dtype=torch.int8 if cache_dtype == "int8" else None,
        cache_tokens=cache_tokens,
    )


def named_packs(model: str, pack: list[Path] | None, bare: bool) -> Sequence[Path]:
    """The packs that a command loads: those named, else those that come with the model."""
    from phi4.checkpoint import hub

    if bare and pack:
        raise InputError(f"--bare leaves out all packs, but --pack names {pack[0]}; give one of the two")
    return () if bare else pack or hub.shipped_packs(model)


def ask(
    text: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    model: Model = "nano",
    image: Annotated[list[Path] | None, typer.Option("--image", "-i", help="Picture; repeatable.")] = None,
    audio: Annotated[list[Path] | None, typer.Option("--audio", "-a", help="Sound; repeatable.")] = None,
    system: System = None,
    tools: Annotated[
        Path | None,
        typer.Option("--tools", help="JSON file: a list of functions, each with name, description and parameters."),
    ] = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    stop: Annotated[list[str] | None, typer.Option("--stop", help="String that ends the answer; repeatable.")] = None,
    pack: Packs = None,
    bare: Bare = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    kv_cache_dtype: CacheDtypeOption = "auto",
    cache_tokens: CacheTokens = None,
    json_output: Json = False,
) -> None:
    """Ask one question.

    Examples:

        phi4 ask "What is the capital of France?"

        phi4 ask --model ./Phi-4-multimodal-instruct --image cat.jpg "What is in the picture?"

        phi4 ask --temperature 0.8 --seed 7 --max-tokens 200 "Tell me a story about a lighthouse."

        phi4 ask --json - < question.txt

        phi4 ask --tools functions.json --system "You book tables." "A table for two, please."
    """
    from phi4.cli.chat import show
    from phi4.engine.sampling import Sampling

    sampling = Sampling(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)
    question = read_stdin() if text == "-" else text
    functions = read_tools_file(tools) if tools else None
    assistant = load(model, pack, bare, dtype, device, kv_cache_dtype, cache_tokens)
    stream = assistant.stream(
        question,
        images=image or (),
        sounds=audio or (),
        system=system,
        tools=functions,
        sampling=sampling,
        stop=stop or (),
    )
    if json_output:
        print_json(stream.answer.to_json())
        return
    show(stream)


def chat(
    model: Model = "nano",
    system: System = None,
    max_tokens: MaxTokens = 512,
    temperature: Temperature = 0.0,
    top_k: TopK = None,
    top_p: TopP = 1.0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = None,
    pack: Packs = None,
    bare: Bare = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    kv_cache_dtype: CacheDtypeOption = "auto",
    cache_tokens: CacheTokens = None,
) -> None:
    """Chat with a model; answers stream, and the conversation is remembered.

    Inside, /image FILE and /audio FILE attach to your next message, /reset starts over, /quit or Ctrl-D ends.

    Examples:

        phi4 chat --temperature 0.7

        phi4 chat --model ./Phi-4-multimodal-instruct --system "Answer in one sentence."
    """
    from phi4.cli.chat import Chat
    from phi4.engine.sampling import Sampling

    sampling = Sampling(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)
    Chat(load(model, pack, bare, dtype, device, kv_cache_dtype, cache_tokens), sampling, system).run()


def transcribe(
    files: Annotated[list[Path], typer.Argument(help="Sounds: wav, flac, ogg, mp3.")],
    model: Model = "nano",
    max_tokens: MaxTokens = 512,
    pack: Packs = None,
    bare: Bare = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    kv_cache_dtype: CacheDtypeOption = "auto",
    cache_tokens: CacheTokens = None,
    json_output: Json = False,
) -> None:
    """Write down what is said in sounds. It takes a model with speech; that of `nano` is a beginning.

    A file that cannot be used is reported, the others are transcribed, and the exit status is 2.

    Examples:

        phi4 transcribe sound.wav

        phi4 transcribe --model ./Phi-4-multimodal-instruct talk.wav interview.flac
    """
    from phi4.engine.sampling import Sampling

    sampling = Sampling(max_tokens=max_tokens)
    assistant = load(model, pack, bare, dtype, device, kv_cache_dtype, cache_tokens)
    results: list[dict[str, Any]] = []
    for file in files:
        try:
            answer = assistant.transcribe(file, sampling=sampling)
            results.append({"file": str(file), **answer.to_json()})
        except Phi4Error as error:
            results.append({"file": str(file), "error": str(error)})
        if not json_output:
            report_transcript(results[-1], show_name=len(files) > 1)
    if json_output:
        print_json({"files": results})
    if any("error" in result for result in results):
        raise typer.Exit(2)


def report_transcript(result: dict[str, Any], show_name: bool) -> None:
    """Prints one transcript, or on stderr why there is none."""
    if "error" in result:
        print(f"error: {result['file']}: {result['error']}", file=sys.stderr)
    else:
        print(f"{result['file']}: {result['text']}" if show_name else result["text"])
        if result["finish_reason"] == "length":
            number = len(result["token_ids"])
            print(f"{result['file']}: cut off after {number} tokens; raise --max-tokens", file=sys.stderr)


def read_stdin() -> str:
    """Reads a question from standard input, without the line break at its end: `echo` and editors add one."""
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not valid UTF-8: {error}") from error


def read_tools_file(path: Path) -> list[dict[str, Any]]:
    """Reads the functions on offer from a JSON file.

    Raises:
        InputError: the file is missing, is not JSON or does not hold a list.
    """
    try:
        tools = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the tools file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the tools file {path} is not valid JSON: {error}") from error
    if not isinstance(tools, list):
        raise InputError(f"the tools file {path} must hold a list of functions, not a {type(tools).__name__}")
    return tools
