"""Many clients at once, some of them rude: are all answers right, is nothing lost, and how long do tokens take?

phi4 serve --model nano --dtype float32 --max-waiting 1000 --port 8000 &
python benchmarks/server_load.py --url http://127.0.0.1:8000 --pid $! --clients 200 --seconds 180

Every conversation is asked alone first; under load each whole answer must be the same, and each one that was left
midway must have begun in the same way. Prints one JSON object; the exit status is 1 if anything was wrong.
"""

import argparse
import asyncio
import base64
import json
import random
import re
import statistics
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai

MEDIA = Path(__file__).parent.parent / "examples" / "media"
# Shares of clients that hang up midway, that read slowly, and that send what is malformed.
HANG_UPS, SLOW, MALFORMED = 0.1, 0.1, 0.02
SLOW_PAUSE_S = 0.1
IDLE_WAIT_S = 60.0


@dataclass
class Results:
    """What the clients saw; times in seconds."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


def conversations() -> list[list[dict[str, Any]]]:
    """Text, pictures and sounds."""

    def encode(name: str) -> str:
        return base64.b64encode((MEDIA / name).read_bytes()).decode()

    texts = ["What is the capital of France?", "Name three colours.", "Count to ten.", "Write a line about the sea."]
    shape = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encode('shape.png')}"}}
    music = {"type": "input_audio", "input_audio": {"data": encode("music.flac"), "format": "flac"}}
    contents: list[Any] = [
        *texts,
        [shape, {"type": "text", "text": "what is the red shape?"}],
        [music, {"type": "text", "text": "Transcribe the audio clip into text."}],
    ]
    return [[{"role": "user", "content": content}] for content in contents]


async def ask(
    client: openai.AsyncOpenAI, model: str, messages: Any, max_tokens: int, results: Results, manner: str
) -> str:
    """One streamed answer; that of a client who hangs up is only the beginning."""
    started = previous = time.perf_counter()
    text = ""
    pieces_left = random.randint(1, max_tokens // 2) if manner == "hangs up" else max_tokens
    stream = await client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=max_tokens, stream=True
    )
    async with stream:
        async for chunk in stream:
            piece = chunk.choices[0].delta.content
            if not piece:
                continue
            now = time.perf_counter()
            if manner != "slow":
                (results.gaps if text else results.first_token).append(now - (previous if text else started))
            previous = now
            text += piece
            pieces_left -= 1
            if pieces_left == 0:
                return text
            if manner == "slow":
                await asyncio.sleep(SLOW_PAUSE_S)
    return text


async def send_malformed(client: openai.AsyncOpenAI, model: str) -> None:
    """A request that must be refused."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    content: Any = [picture, {"type": "text", "text": "What is this?"}]
    try:
        await client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    except openai.BadRequestError:
        return
    raise AssertionError("a damaged picture was answered")


async def be_a_client(
    client: openai.AsyncOpenAI, model: str, expected: dict[int, str], arguments: Any, results: Results, end: float
) -> None:
    """Asks one question after the other until the time is up."""
    asked = conversations()
    while time.perf_counter() < end:
        manner = random.choices(
            ["hangs up", "slow", "malformed", "polite"], [HANG_UPS, SLOW, MALFORMED, 1 - HANG_UPS - SLOW - MALFORMED]
        )[0]
        number = random.randrange(len(asked))
        try:
            if manner == "malformed":
                await send_malformed(client, model)
            else:
                text = await ask(client, model, asked[number], arguments.max_tokens, results, manner)
                whole = expected[number]
                if not (whole.startswith(text) if manner == "hangs up" else whole == text):
                    results.wrong.append(f"{number} {manner}: {text!r} instead of {whole!r}")
            results.counts[manner] += 1
        except openai.RateLimitError:
            results.counts["sent away"] += 1
            await asyncio.sleep(1.0)
        except (openai.APIError, AssertionError) as error:
            results.counts["failed"] += 1
            results.wrong.append(f"{number} {manner}: {error!r}")


def read_metric(url: str, name: str) -> float:
    """A number of the server's."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        found = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    assert found is not None, f"the server tells no {name}"
    return float(found[1])


def resident_bytes(pid: int | None) -> int | None:
    """Memory of the server's process, if its number is known."""
    if pid is None:
        return None
    (pages,) = re.findall(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(pages) * 1024


def percentiles(seconds: list[float]) -> dict[str, float]:
    """The median and the 95th percentile."""
    parts = statistics.quantiles(seconds, n=20)
    return {"p50_s": round(parts[9], 4), "p95_s": round(parts[18], 4)}


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Asks alone, then all at once, and looks at what is left behind."""
    client = openai.AsyncOpenAI(base_url=f"{arguments.url}/v1", api_key=arguments.api_key, max_retries=0, timeout=600)
    model = (await client.models.list()).data[0].id
    alone = Results()
    expected = {
        number: await ask(client, model, messages, arguments.max_tokens, alone, "polite")
        for number, messages in enumerate(conversations())
    }
    results = Results()
    memory = [resident_bytes(arguments.pid)]
    generated = read_metric(arguments.url, "phi4_generated_tokens_total")
    started = time.perf_counter()
    clients = [
        be_a_client(client, model, expected, arguments, results, started + arguments.seconds)
        for _ in range(arguments.clients)
    ]
    await asyncio.gather(*clients)
    seconds = time.perf_counter() - started
    generated = read_metric(arguments.url, "phi4_generated_tokens_total") - generated
    memory.append(resident_bytes(arguments.pid))
    deadline = time.perf_counter() + IDLE_WAIT_S
    while read_metric(arguments.url, "phi4_requests") and time.perf_counter() < deadline:
        await asyncio.sleep(0.5)
    return {
        "clients": arguments.clients,
        "seconds": round(seconds, 1),
        "requests": dict(results.counts),
        "wrong": results.wrong,
        "first_token": percentiles(results.first_token),
        "token_gap": percentiles(results.gaps),
        "tokens_per_second": round(generated / seconds, 1),
        "requests_left": read_metric(arguments.url, "phi4_requests"),
        "rows_left": read_metric(arguments.url, "phi4_rows_running") + read_metric(arguments.url, "phi4_rows_waiting"),
        "cache_left": read_metric(arguments.url, "phi4_cache_use_ratio"),
        "memory_bytes": memory,
    }


def main() -> None:
    """Reads the options and prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--pid", type=int, help="of the server, to see its memory")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--max-tokens", type=int, default=32)
    found = asyncio.run(run(parser.parse_args()))
    print(json.dumps(found, indent=2))
    left = found["requests_left"] or found["rows_left"] or found["cache_left"]
    sys.exit(1 if found["wrong"] or left else 0)


if __name__ == "__main__":
    main()
