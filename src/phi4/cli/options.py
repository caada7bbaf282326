"""Options that several commands share, and the one way in which they print JSON."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

Dtype = Literal["float32", "bfloat16", "float16"]
Device = Literal["cpu", "cuda", "mps"]
CacheDtype = Literal["auto", "int8"]

Model = Annotated[str, typer.Option("--model", "-m", help="Directory, pulled OWNER/NAME[@REVISION], or `nano`.")]
Packs = Annotated[
    list[Path] | None,
    typer.Option("--pack", help="File that adds a modality; repeatable. Default: what comes with the model."),
]
Bare = Annotated[bool, typer.Option("--bare", help="No packs, not even those that come with the model.")]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option("--dtype", help="Type of the weights; default: as stored, float32 on a CPU without bf16 arithmetic."),
]
DeviceOption = Annotated[Device | None, typer.Option("--device", help="Default: CUDA or MPS if there, else cpu.")]
CacheDtypeOption = Annotated[
    CacheDtype,
    typer.Option(
        "--kv-cache-dtype", help="Type of cached keys and values: auto is the model's; int8 takes about half of bf16."
    ),
]
CacheTokens = Annotated[
    int | None,
    typer.Option("--cache-tokens", help="Tokens that the key/value cache holds; default: by memory.", min=1),
]
System = Annotated[str | None, typer.Option("--system", "-s", help="System message.")]
MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", help="Most tokens to generate.")]
Temperature = Annotated[float, typer.Option("--temperature", "-t", help="0 takes the best token.")]
TopK = Annotated[int | None, typer.Option("--top-k", help="Sample from this many best tokens.")]
TopP = Annotated[float, typer.Option("--top-p", help="Sample from the best tokens with this much probability.")]
MinP = Annotated[float, typer.Option("--min-p", help="Drop tokens less probable than this share of the best.")]
RepetitionPenalty = Annotated[float, typer.Option("--repetition-penalty", help="Above 1 discourages repeats.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Makes sampling repeatable.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]


def print_json(value: dict[str, Any]) -> None:
    """Prints one JSON object on a line of its own, in ASCII: it must reach any terminal and any file unharmed."""
    print(json.dumps(value))
