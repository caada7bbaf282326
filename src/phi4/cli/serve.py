"""The command that serves a model over HTTP."""

import os
from pathlib import Path
from typing import Annotated

import typer

from phi4.cli.conversation import load
from phi4.cli.options import Bare, CacheDtypeOption, CacheTokens, DeviceOption, DtypeOption, Model, Packs


def serve(
    model: Model = "nano",
    host: Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.", min=0, max=65535)] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            help="What clients must send. Others see it in the list of processes: better set PHI4_API_KEY.",
            envvar="PHI4_API_KEY",
        ),
    ] = None,
    max_batch_tokens: Annotated[int, typer.Option("--max-batch-tokens", help="Most tokens of one step.", min=1)] = 1024,
    max_rows: Annotated[int, typer.Option("--max-rows", help="Most answers that are written at a time.", min=1)] = 64,
    cache_tokens: CacheTokens = None,
    max_context: Annotated[
        int | None,
        typer.Option("--max-context", help="Most tokens of prompt and answer; default: the model's.", min=1),
    ] = None,
    max_waiting: Annotated[
        int, typer.Option("--max-waiting", help="Requests that may wait; more get a 429.", min=1)
    ] = 128,
    max_body_mb: Annotated[int, typer.Option("--max-body-mb", help="Largest request.", min=1)] = 32,
    max_bodies_mb: Annotated[
        int, typer.Option("--max-bodies-mb", help="Requests in memory at once; more wait for their turn.", min=1)
    ] = 256,
    max_image_megapixels: Annotated[
        float, typer.Option("--max-image-megapixels", help="Largest picture.", min=0)
    ] = 50.0,
    max_audio_seconds: Annotated[float, typer.Option("--max-audio-seconds", help="Longest sound.", min=0)] = 1800.0,
    allow_remote_media: Annotated[
        bool, typer.Option("--allow-remote-media", help="Fetch media from http addresses in requests.")
    ] = False,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", help="Of requests that give none; 0 always takes the best token.", min=0.0, max=100.0
        ),
    ] = 1.0,
    drain_seconds: Annotated[
        float, typer.Option("--drain-seconds", help="How long answers may go on after SIGTERM.", min=0)
    ] = 30.0,
    pack: Packs = None,
    bare: Bare = False,
    dtype: DtypeOption = None,
    device: DeviceOption = None,
    kv_cache_dtype: CacheDtypeOption = "auto",
) -> None:
    """Serve a model over an OpenAI-compatible API, with a page for chats at /.

    SIGTERM or Ctrl-C lets running answers finish; the second one stops at once.

    Examples:

        phi4 serve --temperature 0

        phi4 serve --model ./Phi-4-multimodal-instruct --host 0.0.0.0 --port 8080 --max-batch-tokens 2048

        PHI4_API_KEY=secret phi4 serve --allow-remote-media
    """
    from phi4.engine.engine import Engine
    from phi4.engine.limits import SchedulerLimits
    from phi4.engine.sampling import Sampling
    from phi4.server.limits import ServerLimits
    from phi4.server.run import Server
    from phi4.server.service import Service

    limits = ServerLimits(
        max_body_bytes=max_body_mb * 2**20,
        max_bodies_bytes=max_bodies_mb * 2**20,
        max_image_pixels=max_image_megapixels * 1e6,
        max_audio_s=max_audio_seconds,
        max_context=max_context,
        max_waiting=max_waiting,
        allow_remote_media=allow_remote_media,
        drain_s=drain_seconds,
    )
    scheduler_limits = SchedulerLimits(max_batch_tokens, max_rows)
    # One that cannot be used is refused here, and not with every request.
    Sampling(temperature=temperature)
    assistant = load(model, pack, bare, dtype, device, kv_cache_dtype)
    generation = assistant.loaded.generation
    engine = Engine(
        assistant.loaded.model,
        generation.eos_token_ids,
        scheduler_limits,
        cache_tokens=cache_tokens,
        cache_dtype=assistant.cache_dtype,
    )
    service = Service(assistant, engine, model_id(model), limits, api_key or None, temperature)
    Server(service, host, port).run()


def model_id(model: str) -> str:
    """What clients call a model: its name, or that of its directory."""
    return Path(model).resolve().name if os.path.isdir(model) else model
