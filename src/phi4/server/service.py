"""What all requests to one server share."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

from starlette.requests import Request as HttpRequest

from phi4.assistant import Assistant
from phi4.engine.engine import Engine
from phi4.engine.request import Request
from phi4.processing.processor import Processor
from phi4.server.admission import Admission
from phi4.server.answers import Answers
from phi4.server.bodies import Bodies
from phi4.server.errors import ErrorBody, RefusedError
from phi4.server.limits import ServerLimits
from phi4.server.metrics import Metrics

_Result = TypeVar("_Result")

# Threads that read and prepare media. Decoding leaves the interpreter's lock alone; more would only take memory.
PREPARATION_THREADS = 4


@dataclass(frozen=True, eq=False)
class Service:
    """A model with its engine, the limits of the server, and what is counted.

    Attributes:
        assistant: the model and how to talk to it.
        engine: answers all requests.
        model_id: what clients call the model.
        limits: what the server takes on.
        api_key: what clients must send; None lets everybody in.
        default_temperature: of requests that give none.
    """

    assistant: Assistant
    engine: Engine
    model_id: str
    limits: ServerLimits = field(default_factory=ServerLimits)
    api_key: str | None = field(default=None, repr=False)
    default_temperature: float = 1.0
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def admission(self) -> Admission:
        """Who waits and who is being answered."""
        return Admission(self.limits.max_waiting)

    @cached_property
    def bodies(self) -> Bodies:
        """Room for what is being sent."""
        return Bodies(self.limits.max_bodies_bytes)

    @cached_property
    def metrics(self) -> Metrics:
        """What `/metrics` tells."""
        return Metrics(self.engine, self.admission)

    @cached_property
    def processor(self) -> Processor:
        """Prepares conversations, within the context that this server allows and its cache can hold."""
        processor = self.assistant.processor
        limit = min(self.limits.max_context or processor.max_tokens, processor.max_tokens, self.engine.cache_tokens)
        return replace(processor, max_tokens=limit)

    @cached_property
    def pack_ids(self) -> dict[str, str]:
        """Modality of each pack by what clients may call it."""
        return {f"{self.model_id}:{name}": name for name in self.assistant.loaded.config.adapters}

    @cached_property
    def _preparation(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(PREPARATION_THREADS, "phi4-prepare")

    async def prepare(self, work: Callable[[], _Result]) -> _Result:
        """Runs what takes long, such as decoding media, beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._preparation, work)

    def check_model(self, name: str | None) -> None:
        """Refuses a request for another model.

        Raises:
            RefusedError: with status 404.
        """
        if name is not None and name != self.model_id and name not in self.pack_ids:
            known = ", ".join([self.model_id, *self.pack_ids])
            body = ErrorBody(
                f"there is no model {name!r} here; there is {known}", "not_found_error", "model", "model_not_found"
            )
            raise RefusedError(404, body)

    def answer(self, request: Request, stop: Sequence[str], model: str | None) -> Answers:
        """Hands a request to the engine.

        Raises:
            InputError, CapacityError: the request cannot be answered.
            RefusedError: it names a pack, but the conversation has another adapter.
        """
        adapter = self.assistant.loaded.model.adapter_for(request.inputs.modalities)
        pack = self.pack_ids.get(model or "")
        if pack is not None and pack != adapter:
            body = ErrorBody(
                f"the request names the pack {model}, but this conversation uses "
                f"{f'the {adapter} adapter' if adapter else 'no adapter'}; what a conversation holds decides that, "
                f"so name {self.model_id}",
                "invalid_request_error",
                "model",
            )
            raise RefusedError(400, body)
        return Answers(self.engine, self.processor.tokenizer, request, stop, self.metrics)

    def close(self) -> None:
        """Ends the engine and the threads."""
        self.engine.close()
        self._preparation.shutdown(wait=False, cancel_futures=True)


def service_of(request: HttpRequest) -> Service:
    """The service that an application was built with."""
    service: Service = request.app.state.service
    return service
