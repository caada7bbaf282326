"""Many clients at once, some of them rude: are all answers right, is nothing lost, and how long do tokens take?

python benchmarks/server_load.py --model nano --dtype float32 --clients 200 --seconds 180 --page results.md

Starts a server, asks every conversation alone, then lets the clients ask at random. Each whole answer must be the one
that was given alone, and each one that was left midway must have begun in the same way. In bf16 that needs the native
kernels: the stock matrix product rounds differently with the shape of a batch. Prints what was found; the exit status
is 1 if anything was wrong.
"""

import argparse
import asyncio
import base64
import datetime
import json
import os
import platform
import random
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import torch

MEDIA = Path(__file__).parent.parent / "examples" / "media"
# Shares of requests whose client hangs up midway, reads slowly, or sends what is malformed.
HANG_UPS, SLOW, MALFORMED = 0.1, 0.1, 0.02
SLOW_PAUSE_S = 0.1
IDLE_WAIT_S = 60.0
START_WAIT_S = 300.0
# Memory is flat if its median in the last quarter of the time is at most this much above that in the second one.
MAX_GROWTH = 0.05
NUM_SAMPLES = 24
FILL_TOKENS = 256
SAMPLED = {"running": "phi4_rows_running", "waiting": "phi4_requests_waiting", "cache": "phi4_cache_use_ratio"}


@dataclass
class Results:
    """What the clients saw; times in seconds, by kind of conversation."""

    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    first_token: dict[str, list[float]] = field(default_factory=dict)
    gaps: dict[str, list[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Conversation:
    """A question, and what is answered to it alone."""

    kind: str
    messages: list[Any]
    answer: str = ""


def conversations() -> list[Conversation]:
    """Text, pictures and sounds."""

    def encode(name: str) -> str:
        return base64.b64encode((MEDIA / name).read_bytes()).decode()

    shape = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encode('shape.png')}"}}
    music = {"type": "input_audio", "input_audio": {"data": encode("music.flac"), "format": "flac"}}
    contents: list[tuple[str, Any]] = [
        ("text", "What is the capital of France?"),
        ("text", "Name three colours."),
        ("text", "Count to ten."),
        ("text", "Write a line about the sea."),
        ("image", [shape, {"type": "text", "text": "what is the red shape?"}]),
        ("audio", [music, {"type": "text", "text": "Transcribe the audio clip into text."}]),
    ]
    return [Conversation(kind, [{"role": "user", "content": content}]) for kind, content in contents]


# What must be refused, in place of a question or beside it.
DAMAGED = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
WRONG_FIELDS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": [DAMAGED]}]},
    {"messages": [{"role": "king", "content": "Hello"}]},
    {"temperature": "hot"},
    {"model": "no-such-model"},
    {"stop": [""]},
]


class Clients:
    """Clients of one server, and what they see."""

    def __init__(self, url: str, arguments: argparse.Namespace) -> None:
        self.results = Results()
        self.model = ""
        self._max_tokens = arguments.max_tokens
        self._client = openai.AsyncOpenAI(
            base_url=f"{url}/v1", api_key=arguments.api_key, max_retries=0, timeout=arguments.timeout
        )

    async def fill_cache(self, num_tokens: int, draw: random.Random) -> None:
        """Has each block of the cache written once: until then a server's memory grows whatever it does."""
        for _ in range(0, num_tokens, FILL_TOKENS):
            prompt = [draw.randrange(100, 200) for _ in range(FILL_TOKENS)]
            await self._client.completions.create(model=self.model, prompt=prompt, max_tokens=1)

    async def ask_alone(self) -> list[Conversation]:
        """All conversations, one after the other, with their answers."""
        self.model = (await self._client.models.list()).data[0].id
        asked = [
            Conversation(one.kind, one.messages, await self._ask(one, "alone", random.Random()))
            for one in conversations()
        ]
        self.results = Results()
        return asked

    async def be_one(self, asked: list[Conversation], end: float, draw: random.Random) -> None:
        """Asks one question after the other until the time is up."""
        manners, shares = ["hangs up", "slow", "malformed", "polite"], [HANG_UPS, SLOW, MALFORMED]
        while time.perf_counter() < end:
            (manner,) = draw.choices(manners, [*shares, 1 - sum(shares)])
            conversation = draw.choice(asked)
            self.results.counts["sent"] += 1
            try:
                if manner == "malformed":
                    await self._send_malformed(draw.choice(WRONG_FIELDS))
                else:
                    self._check(conversation, manner, await self._ask(conversation, manner, draw))
                self.results.counts[manner] += 1
            except openai.RateLimitError:
                self.results.counts["sent away"] += 1
                await asyncio.sleep(1.0)
            except (openai.APIError, AssertionError) as error:
                self.results.counts["failed"] += 1
                self.results.wrong.append(f"{conversation.kind} {manner}: {error!r}")

    def _check(self, conversation: Conversation, manner: str, text: str) -> None:
        whole = conversation.answer
        if not (whole.startswith(text) if manner == "hangs up" else whole == text):
            self.results.wrong.append(f"{conversation.kind} {manner}: {text!r} instead of {whole!r}")

    async def _ask(self, conversation: Conversation, manner: str, draw: random.Random) -> str:
        """One streamed answer; that of a client who hangs up is only the beginning."""
        started = previous = time.perf_counter()
        text = ""
        pieces_left = draw.randint(1, self._max_tokens // 2) if manner == "hangs up" else self._max_tokens
        stream = await self._client.chat.completions.create(
            model=self.model, messages=conversation.messages, temperature=0, max_tokens=self._max_tokens, stream=True
        )
        async with stream:
            async for chunk in stream:
                piece = chunk.choices[0].delta.content
                if not piece:
                    continue
                now = time.perf_counter()
                if manner != "slow":
                    times = self.results.gaps if text else self.results.first_token
                    times.setdefault(conversation.kind, []).append(now - (previous if text else started))
                previous = now
                text += piece
                pieces_left -= 1
                if pieces_left == 0:
                    return text
                if manner == "slow":
                    await asyncio.sleep(SLOW_PAUSE_S)
        return text

    async def _send_malformed(self, fields: dict[str, Any]) -> None:
        fine: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 2,
        }
        try:
            await self._client.chat.completions.create(**fine, extra_body=fields)
        except (openai.BadRequestError, openai.NotFoundError):
            return
        raise AssertionError(f"it was answered, though wrong: {fields}")


def read_metrics(url: str, api_key: str) -> dict[str, float]:
    """The server's numbers."""
    request = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {api_key}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        lines = response.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def num_responses(metrics: dict[str, float]) -> int:
    """Chats that were answered or refused."""
    prefix = 'phi4_http_responses_total{path="/v1/chat/completions"'
    return int(sum(value for name, value in metrics.items() if name.startswith(prefix)))


def resident_bytes(pid: int) -> int:
    """Memory of the server's process."""
    (kilobytes,) = re.findall(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


def percentiles(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The median and the 95th percentile of each kind, and of all."""
    found = {}
    for kind, seconds in {**times, "all": [one for own in times.values() for one in own]}.items():
        parts = statistics.quantiles(seconds, n=20) if len(seconds) > 1 else [0.0] * 19
        found[kind] = {"number": len(seconds), "p50_s": round(parts[9], 4), "p95_s": round(parts[18], 4)}
    return found


def growth(samples: list[int]) -> float:
    """By how much of it memory grew from the second quarter of the time to the last."""
    quarter = max(1, len(samples) // 4)
    early, late = statistics.median(samples[quarter : 2 * quarter]), statistics.median(samples[-quarter:])
    return late / early - 1


async def run(url: str, pid: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Asks alone, then all at once, and looks at what is left behind."""
    clients = Clients(url, arguments)
    asked = await clients.ask_alone()
    await clients.fill_cache(arguments.cache_tokens, random.Random(arguments.seed))
    before = read_metrics(url, arguments.api_key)
    samples: list[dict[str, float]] = []
    started = time.perf_counter()

    async def watch() -> None:
        while True:
            metrics = await asyncio.to_thread(read_metrics, url, arguments.api_key)
            names = {
                "running": "phi4_rows_running",
                "waiting": "phi4_requests_waiting",
                "cache": "phi4_cache_use_ratio",
            }
            sample = {name: metrics[own] for name, own in names.items()}
            samples.append({"s": round(time.perf_counter() - started), "bytes": resident_bytes(pid), **sample})
            await asyncio.sleep(arguments.seconds / NUM_SAMPLES)

    watching = asyncio.create_task(watch())
    end = started + arguments.seconds
    await asyncio.gather(
        *(
            clients.be_one(asked, end, random.Random(f"{arguments.seed} {number}"))
            for number in range(arguments.clients)
        )
    )
    seconds = time.perf_counter() - started
    watching.cancel()
    after = read_metrics(url, arguments.api_key)
    deadline = time.perf_counter() + IDLE_WAIT_S
    left = ("phi4_requests", "phi4_rows_running", "phi4_rows_waiting", "phi4_cache_use_ratio")
    while any((idle := read_metrics(url, arguments.api_key))[name] for name in left) and time.perf_counter() < deadline:
        await asyncio.sleep(0.5)
    counts = clients.results.counts
    memory_growth = growth([int(sample["bytes"]) for sample in samples])
    lost = counts["sent"] - (num_responses(idle) - num_responses(before))
    faults = [
        *clients.results.wrong,
        *(f"{name} is {idle[name]} at the end, not 0" for name in left if idle[name]),
        *([f"{lost} requests have no response that the server counted"] if lost else []),
        *([f"memory grew by {memory_growth:.1%}"] if memory_growth > MAX_GROWTH else []),
    ]
    return {
        "clients": arguments.clients,
        "seconds": round(seconds, 1),
        "requests": dict(counts),
        "faults": faults,
        "first_token": percentiles(clients.results.first_token),
        "token_gap": percentiles(clients.results.gaps),
        "tokens_per_second": round(
            (after["phi4_generated_tokens_total"] - before["phi4_generated_tokens_total"]) / seconds, 1
        ),
        "preemptions": int(after["phi4_preemptions_total"] - before["phi4_preemptions_total"]),
        "memory_growth": round(memory_growth, 4),
        "samples": samples,
    }


@contextmanager
def serving(arguments: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """A server with the model, its address and its process."""
    options = ["--port", "0", "--model", arguments.model, "--max-waiting", str(4 * arguments.clients)]
    options += [
        "--dtype",
        arguments.dtype,
        "--cache-tokens",
        str(arguments.cache_tokens),
        *shlex.split(arguments.serve),
    ]
    with tempfile.NamedTemporaryFile("r") as log, open(log.name, "w") as file:
        environment = os.environ | {"PHI4_API_KEY": arguments.api_key, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "phi4", "serve", *options], stdout=file, stderr=file, env=environment
        )
        try:
            deadline = time.monotonic() + START_WAIT_S
            while not (found := re.search(r"http://127\.0\.0\.1:\d+", Path(log.name).read_text())):
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the server did not start:\n{Path(log.name).read_text()}")
                time.sleep(0.1)
            yield found[0], process.pid
            if tracebacks := Path(log.name).read_text().count("Traceback"):
                print(f"the server's log has {tracebacks} tracebacks:\n{Path(log.name).read_text()}", file=sys.stderr)
        finally:
            process.kill()
            process.wait()


def hardware() -> str:
    """What this machine is."""
    (name, *_) = re.findall(r"^model name\s*: (.+)", Path("/proc/cpuinfo").read_text(), re.MULTILINE) or ["unknown"]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{name}, {len(os.sched_getaffinity(0))} cores for server and clients together, {gigabytes:.0f} GiB, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def page(found: dict[str, Any], arguments: argparse.Namespace) -> str:
    """The result page."""
    today = datetime.date.today().isoformat()
    names = ("model", "dtype", "cache_tokens", "clients", "seconds", "max_tokens", "seed")
    options = " ".join(f"--{name.replace('_', '-')} {getattr(arguments, name)}" for name in names)
    options += f' --serve "{arguments.serve}"' if arguments.serve else ""
    counts = found["requests"]
    rows = [
        f"| {what} | {kind} | {one['number']} | {1000 * one['p50_s']:.0f} | {1000 * one['p95_s']:.0f} |"
        for what, name in (("first token", "first_token"), ("gap between tokens", "token_gap"))
        for kind, one in found[name].items()
    ]
    samples = [
        f"| {one['s']} | {one['bytes'] / 2**20:.0f} | {one['running']:g} | {one['waiting']:g} | {one['cache']:.2f} |"
        for one in found["samples"]
    ]
    faults = found["faults"] or ["none"]
    lines = [
        f"# Load on the server, {today}",
        "",
        f"{hardware()}.",
        "",
        "```text",
        f"python benchmarks/server_load.py {options}",
        "```",
        "",
        f"{found['clients']} clients, {found['seconds']} s until the last answer; of {counts['sent']} requests "
        + ", ".join(f"{counts[name]} {name}" for name in sorted(counts) if name != "sent")
        + f". {found['tokens_per_second']} tokens/s together, {found['preemptions']} preemptions.",
        "",
        "Every whole answer is compared with the one given alone, and the beginning of every one that was left.",
        "",
        "Faults: " + "; ".join(faults[:10]) + ("." if len(faults) <= 10 else f"; {len(faults)} in all."),
        "",
        "| | conversations | number | median, ms | 95th percentile, ms |",
        "|---|---|---|---|---|",
        *rows,
        "",
        f"Memory grew by {found['memory_growth']:.1%} from the second quarter of the time to the last.",
        "",
        "| s | memory, MiB | rows running | requests waiting | cache in use |",
        "|---|---|---|---|---|",
        *samples,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Reads the options, prints what was found and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--cache-tokens", type=int, default=8192)
    parser.add_argument("--serve", default="", help="more options for phi4 serve, as one string")
    parser.add_argument("--api-key", default="none")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds until a request counts as lost")
    parser.add_argument("--page", type=Path, help="where the result page is written")
    arguments = parser.parse_args()
    with serving(arguments) as (url, pid):
        found = asyncio.run(run(url, pid, arguments))
    print(json.dumps(found, indent=2))
    if arguments.page:
        arguments.page.write_text(page(found, arguments))
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()
