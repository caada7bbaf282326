"""Servers on loopback, ways to talk to them, and what to send."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import numpy as np
import openai
import PIL.Image
import soundfile

from phi4 import Assistant
from phi4.engine.engine import Engine
from phi4.engine.limits import SchedulerLimits
from phi4.server.limits import ServerLimits
from phi4.server.run import Server
from phi4.server.service import Service

# Generous: a busy machine is no failure.
WAIT_S = 600.0


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Running:
    """A server that listens, and a client of it."""

    service: Service
    port: int
    client: openai.OpenAI

    def send(
        self, path: str, body: Any = None, method: str | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """Sends an object as JSON, or bytes as they are."""
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        try:
            sent = {"content-type": "application/json"} | (headers or {})
            connection.request(method or ("GET" if body is None else "POST"), path, content, sent)
            response = connection.getresponse()
            lowered = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, lowered, response.read())
        finally:
            connection.close()

    def wait_until_idle(self) -> None:
        """Waits until no request and no row is left, which a hang-up brings about soon but not at once."""
        wait_until(lambda: self.service.admission.num_requests == 0 and num_rows(self.service.engine) == 0)


def num_rows(engine: Engine) -> int:
    return engine.num_running + engine.num_waiting


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@contextmanager
def running_server(assistant: Assistant, limits: ServerLimits, api_key: str | None = None) -> Iterator[Running]:
    engine = Engine(
        assistant.loaded.model,
        assistant.loaded.generation.eos_token_ids,
        SchedulerLimits(max_step_tokens=256),
        cache_tokens=16384,
    )
    service = Service(assistant, engine, "tiny", limits, api_key)
    server = Server(service, "127.0.0.1", 0, log_level="error")
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        url = f"http://127.0.0.1:{server.port}/v1"
        # Closed here: left to the garbage collector, its connections may warn in the middle of another test.
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=WAIT_S) as client:
            yield Running(service, server.port, client)
    finally:
        server.should_exit = True
        thread.join()


def picture_bytes(width: int = 100, height: int = 70, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def sound_bytes(seconds: float = 1.0, rate: int = 16000) -> bytes:
    file = io.BytesIO()
    samples = np.sin(np.arange(int(seconds * rate)) * 0.05).astype(np.float32) * 0.5
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def picture_part(content: bytes | None = None) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_uri(content or picture_bytes(), "image/png")}}


def sound_part(content: bytes | None = None) -> dict[str, Any]:
    data = base64.b64encode(content or sound_bytes()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def user(*parts: Any) -> list[dict[str, Any]]:
    """A conversation of one message."""
    content = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else list(parts)
    return [{"role": "user", "content": content}]


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}
