"""Long conversations of a model with the sizes of Phi-4-Mini, 4-bit weights and few layers or all: random weights.

How long one row takes for a token behind a long history, with keys and values of bf16 and of 8 bits, in turns, and how
much of what a loop reads from memory that is:

    python benchmarks/long_context.py decode --layers 2 --contexts 1024 8192 32768 --threads 1

How long a prompt takes that is read in chunks: first the floor and an estimate from a few chunks, then, with --keep,
the prompt itself for as many minutes as it may take. Keys and values are files in a directory; the same command goes
on where it stopped. All of it, in about 12 GB of memory and 9 GB of files:

    python benchmarks/long_context.py prefill --layers 32 --tokens 131072 --keep DIRECTORY --minutes 1440
"""

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from peer_programs.full_cache import BLOCK_TOKENS, full_cache
from quantised_linear import floors
from timing import alternate

from phi4.checkpoint.presets import load_preset
from phi4.checkpoint.quantise import SCHEMES
from phi4.config import DecoderConfig, QuantisationConfig
from phi4.kernels.cached_layers import CachedLayers
from phi4.kernels.instructions import LEVELS
from phi4.memory import peak_resident_bytes
from phi4.model.decoder import Phi4Mini
from phi4.model.paged_cache import PagedCache, bytes_per_token
from phi4.model.quantised import QuantisedWeight
from phi4.model.step import Segment, rotary_for

CPU = torch.device("cpu")
CACHE_DTYPES = {"bf16": torch.bfloat16, "int8": torch.int8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    decode = commands.add_parser("decode")
    decode.add_argument("--contexts", type=int, nargs="+", default=[1024, 8192, 32768])
    decode.add_argument("--rounds", type=int, default=15)
    prefill = commands.add_parser("prefill")
    prefill.add_argument("--tokens", type=int, default=131_072)
    prefill.add_argument("--chunk", type=int, default=1024)
    prefill.add_argument("--new-tokens", type=int, default=64, help="written behind the prompt")
    prefill.add_argument("--cache", choices=CACHE_DTYPES, default="int8")
    prefill.add_argument("--keep", type=Path, help="read the prompt, too; what was read so far is kept here")
    prefill.add_argument("--minutes", type=float, default=10.0, help="stop after this long")
    for command in (decode, prefill):
        command.add_argument("--layers", type=int, default=2)
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = random_model(arguments.layers)
    with torch.inference_mode():
        if arguments.command == "decode":
            read, _ = floors(arguments.threads)
            print(f"{arguments.layers} layers, {arguments.threads} threads; a loop reads {read:.1f} GB/s")
            for context in arguments.contexts:
                time_decode(model, context, arguments.rounds, read)
        else:
            estimate(model, arguments.tokens, arguments.chunk, arguments.cache, arguments.threads)
            if arguments.keep:
                run(model, arguments)


def random_model(layers: int) -> Phi4Mini:
    """Phi-4-Mini with this many layers, and weights of 4 bits about as large as a new model's."""
    scheme = SCHEMES["4bit"]
    quantisation = QuantisationConfig(scheme.linear_bits(layers), scheme.table_bits, base_digest="")
    config = replace(load_preset("mini").config.decoder, num_hidden_layers=layers, quantisation=quantisation)
    torch.manual_seed(0)
    model = Phi4Mini(config).to(torch.bfloat16).eval()
    for module in model.modules():
        if isinstance(module, QuantisedWeight):
            module.codes.random_(256)
            assert module.steps is not None
            module.steps[:, :, 0], module.steps[:, :, 1] = 17, 0
            module.scales.fill_(0.02 / 74)
    for weight in model.parameters():
        weight.data.fill_(1.0)
    return model


def segment_of(cache: PagedCache, config: DecoderConfig, cached: int, length: int) -> Segment:
    row = cache.row(range(cache.num_blocks))
    return Segment(length, cached, None, rotary_for(config, cached + length), row)


def time_decode(model: Phi4Mini, context: int, rounds: int, read: float) -> None:
    """Times attention by itself and the layers as a whole, for the token behind a history; prints a line for each."""
    config = model.decoder_config
    caches = {name: full_cache(config, context + 1, dtype) for name, dtype in CACHE_DTYPES.items()}
    hidden = torch.randn(1, config.hidden_size, dtype=torch.bfloat16)
    heads = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
    fused = torch.randn(1, sum(heads), config.head_dim, dtype=torch.bfloat16)
    queries, keys, values = fused.split(heads, dim=1)
    steps = {name: model.step([segment_of(cache, config, context, 1)]) for name, cache in caches.items()}

    def attend(name: str) -> None:
        paged = steps[name].paged
        assert paged is not None
        for layer in range(config.num_hidden_layers):
            paged.attend(layer, queries, keys, values)

    runs = {f"attention, {name}": lambda name=name: attend(name) for name in caches}
    runs |= {f"layers, {name}": lambda name=name: model(hidden, steps[name]) for name in caches}
    seconds = alternate(runs, rounds)
    for part in ("attention", "layers"):
        for name, dtype in CACHE_DTYPES.items():
            each = seconds[f"{part}, {name}"]
            speed = bytes_per_token(config, dtype) * (context + 1) / each / 1e9
            share = f", reads the cache at {speed:.1f} GB/s ({speed / read:.0%})" if part == "attention" else ""
            ratio = seconds[f"{part}, bf16"] / each
            print(f"{context} tokens, {part}, {name}: {1e3 * each:.3f} ms{share}, {ratio:.2f} x bf16", flush=True)


def estimate(model: Phi4Mini, tokens: int, chunk: int, cache_name: str, threads: int) -> None:
    """Prints the floor of a prompt, and how long it takes by two of its chunks.

    A chunk takes some time of its own and some for each token before it, so that two of them tell of all.
    """
    config = model.decoder_config
    weights = sum(m.codes.shape[0] * 16 * m.codes.shape[1] * 32 for m in quantised_linears(model))
    products = 2 * weights * tokens
    attention = 2 * config.num_attention_heads * config.head_dim * tokens**2 * config.num_hidden_layers
    _, byte_peak = floors(threads)
    attention_peak = byte_peak if cache_name == "int8" else tera_operations()
    floor = products / byte_peak / 1e12 + attention / attention_peak / 1e12
    print(
        f"{tokens} tokens, {config.num_hidden_layers} layers, {threads} threads: products {products / 1e12:.0f} T at "
        f"{byte_peak:.2f} TOPS of 8 bits, attention {attention / 1e12:.0f} T at {attention_peak:.3f} TOPS: "
        f"floor {floor / 3600:.2f} h"
    )
    history = min(tokens, 8192)
    cache = full_cache(config, history + chunk, CACHE_DTYPES[cache_name])
    hidden = torch.randn(chunk, config.hidden_size, dtype=torch.bfloat16)
    steps = [model.step([segment_of(cache, config, cached, chunk)], [chunk - 1]) for cached in (0, history)]
    first, last = alternate(
        {"first": lambda: model(hidden, steps[0]), "last": lambda: model(hidden, steps[1])}, 3
    ).values()
    chunks = tokens / chunk
    seconds = chunks * first + (last - first) / history * chunk * chunks * (chunks - 1) / 2
    print(
        f"a chunk of {chunk}: {first:.2f} s at the beginning, {last:.2f} s behind {history} tokens: "
        f"about {seconds / 3600:.2f} h in all, {seconds / floor:.1f} x the floor",
        flush=True,
    )


def quantised_linears(model: Phi4Mini) -> list[QuantisedWeight]:
    return [module for module in model.model.layers.modules() if isinstance(module, QuantisedWeight)]


def tera_operations() -> float:
    """10^12 operations a second of the stock product at its best, in the type that attention over bf16 multiplies."""
    has_bf16 = {"amx", "avx512_bf16"} & set(LEVELS)
    a, b = torch.randn(2, 2048, 2048).to(torch.bfloat16 if has_bf16 else torch.float32)
    return 2 * 2048**3 / min(alternate({"product": lambda: a @ b}, 1)["product"] for _ in range(5)) / 1e12


def run(model: Phi4Mini, arguments: argparse.Namespace) -> None:
    """Reads a random prompt in chunks, writes some tokens behind it, and prints what it took so far on the way."""
    config, tokens, chunk = model.decoder_config, arguments.tokens, arguments.chunk
    num_blocks = -(-(tokens + arguments.new_tokens) // BLOCK_TOKENS)
    cache = kept_cache(config, num_blocks, CACHE_DTYPES[arguments.cache], arguments.keep)
    row, rotary = cache.row(range(num_blocks)), rotary_for(config, tokens + arguments.new_tokens)
    ids = torch.randint(config.vocab_size, (tokens,), generator=torch.Generator().manual_seed(1))
    log = arguments.keep / "chunks.jsonl"
    before = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    elapsed, done, token = sum(part["seconds"] for part in before), sum(part["tokens"] for part in before), ids[:1]
    deadline = time.perf_counter() + 60 * arguments.minutes
    while done < tokens:
        if time.perf_counter() > deadline:
            print(f"stopped after {arguments.minutes} minutes; the same command goes on")
            return
        started = time.perf_counter()
        new = ids[done : done + chunk]
        step = model.step([Segment(len(new), done, None, rotary, row)], [len(new) - 1])
        token = model.logits(model(model.embed(new), step)).argmax(-1)
        seconds = time.perf_counter() - started
        elapsed, done = elapsed + seconds, done + len(new)
        with log.open("a") as file:
            file.write(json.dumps({"tokens": len(new), "seconds": round(seconds, 3)}) + "\n")
        print(f"{done} tokens: {elapsed:.0f} s, {done / elapsed:.1f} tokens/s, {peak_gib():.2f} GiB", flush=True)
    started = time.perf_counter()
    for position in range(tokens, tokens + arguments.new_tokens):
        step = model.step([Segment(1, position, None, rotary, row)])
        token = model.logits(model(model.embed(token), step)).argmax(-1)
    elapsed = time.perf_counter() - started
    print(
        f"{arguments.new_tokens} new tokens: {elapsed:.1f} s, {arguments.new_tokens / elapsed:.2f} tokens/s, "
        f"{peak_gib():.2f} GiB, cache {cache.memory_bytes / 2**30:.2f} GiB"
    )


def kept_cache(config: DecoderConfig, num_blocks: int, dtype: torch.dtype, directory: Path) -> PagedCache:
    """A cache whose storage is files of a directory, with what they hold."""
    directory.mkdir(parents=True, exist_ok=True)
    cache = PagedCache(config, num_blocks, BLOCK_TOKENS, dtype, CPU)

    def kept(name: str, storage: torch.Tensor) -> torch.Tensor:
        size, path = math.prod(storage.shape), str(directory / name)
        return torch.from_file(path, shared=True, size=size, dtype=storage.dtype).view(storage.shape)

    stored = cache.layers
    keys, values = (
        [kept(f"{kind}-{layer}", storage) for layer, storage in enumerate(storages)]
        for kind, storages in (("keys", stored.keys), ("values", stored.values))
    )
    scales = [
        (kept(f"key-scales-{layer}", of_keys), kept(f"value-scales-{layer}", of_values))
        for layer, (of_keys, of_values) in enumerate(stored.scales or ())
    ]
    cache.layers = CachedLayers(keys, values, scales or None)
    return cache


def peak_gib() -> float:
    """Most memory that this process held, the weights included."""
    return peak_resident_bytes() / 2**30


if __name__ == "__main__":
    main()
