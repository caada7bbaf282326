"""The engine: many requests, of any mixture of modalities, advance together and each as if it were alone."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from queue import SimpleQueue

import torch

from phi4.engine.block_pool import BlockPool
from phi4.engine.cache_size import check_cache_tokens, default_cache_tokens
from phi4.engine.feature_cache import FeatureCache
from phi4.engine.handle import Event, Handle
from phi4.engine.inbox import Inbox
from phi4.engine.language_model import LanguageModel
from phi4.engine.limits import SchedulerLimits
from phi4.engine.plan import Piece, Plan
from phi4.engine.request import FinishReason, GeneratedToken, Request, check_request
from phi4.engine.row import Row
from phi4.engine.runner import Runner, StepResult
from phi4.engine.sampler import Choice, Question, Sampler, choose_tokens
from phi4.engine.scheduler import Counts, Scheduler
from phi4.errors import ClosedError, ConfigError
from phi4.model.paged_cache import PagedCache

DEFAULT_FEATURE_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class _Answer:
    """One of the answers to a request: how its tokens are chosen and where they go."""

    handle: Handle
    choice: int
    sampler: Sampler


class Engine:
    """Owns a model and answers requests with it, in one thread, which lives while there is something to do.

    Example:
        >>> engine = Engine(loaded.model, loaded.generation.eos_token_ids)
        >>> token_ids = [token.token_id for token in engine.submit(Request(inputs, Sampling()))]
    """

    def __init__(
        self,
        model: LanguageModel,
        eos_token_ids: Sequence[int],
        limits: SchedulerLimits | None = None,
        *,
        cache_tokens: int | None = None,
        cache_dtype: torch.dtype | None = None,
        feature_bytes: int = DEFAULT_FEATURE_BYTES,
    ) -> None:
        """Makes room for the cache.

        Args:
            model: a language model, with or without modalities. Others may run it too; both are slower then.
            eos_token_ids: ids that end an answer; the release has two, 200020 and 199999 (facts sheet 1.1).
            limits: what bounds a step.
            cache_tokens: tokens that the key/value cache holds; None takes `default_cache_tokens`.
            cache_dtype: type of the cached keys and values: torch.int8 rounds them to bytes with scales; None takes the
                model's.
            feature_bytes: what encoders made of media is kept up to this size.

        Raises:
            ConfigError: the cache cannot be of this type or size.
        """
        if cache_dtype not in (None, model.dtype, torch.int8):
            raise ConfigError(f"cache_dtype must be torch.int8 or the model's type, {model.dtype}, not {cache_dtype}")
        self.model = model
        self.limits = limits or SchedulerLimits()
        self._eos_token_ids = frozenset(eos_token_ids)
        dtype = cache_dtype or model.dtype
        about = (model.decoder_config, dtype, model.device)
        tokens = default_cache_tokens(*about) if cache_tokens is None else check_cache_tokens(cache_tokens, *about)
        num_blocks = max(1, tokens // self.limits.block_tokens)
        cache = PagedCache(model.decoder_config, num_blocks, self.limits.block_tokens, dtype, model.device)
        self._scheduler = Scheduler(BlockPool(num_blocks), self.limits)
        self._runner = Runner(model, cache, FeatureCache(model, feature_bytes))
        self._answers: dict[Row, _Answer] = {}
        self._rows: dict[Handle, list[Row]] = {}
        self._num_rows = 0
        self._inbox = Inbox()

    @property
    def counts(self) -> Counts:
        """What happened since the engine was made."""
        return self._scheduler.counts

    @property
    def num_waiting(self) -> int:
        """Answers that have not begun, or were preempted."""
        return len(self._scheduler.waiting)

    @property
    def num_running(self) -> int:
        """Answers that hold blocks of the cache."""
        return len(self._scheduler.running)

    @property
    def cache_use(self) -> float:
        """Share of the cache's blocks that running answers hold."""
        pool = self._scheduler.pool
        return 1 - pool.num_available / pool.num_blocks

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache holds; no conversation can have more."""
        return self._scheduler.pool.num_blocks * self.limits.block_tokens

    def submit(self, request: Request) -> Handle:
        """Queues a request; its tokens come through the handle. Any thread may call this.

        Raises:
            InputError: the conversation is empty, or needs a modality that the model lacks.
            CapacityError: the conversation is longer than the context or the cache.
            ClosedError: the engine is closed.
        """
        handle = Handle(request, self._check(request))
        self._inbox.put([(handle, self._samplers(request))], self._work)
        return handle

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, GeneratedToken]]:
        """Answers all requests together and yields their tokens as they come, each with the index of its request.

        All requests are checked before the first one is queued. One that fails later ends the others.

        Raises:
            InputError, CapacityError, ClosedError: as `submit` does.
        """
        events: SimpleQueue[tuple[int, Event]] = SimpleQueue()
        handles = [Handle(one, self._check(one), index, events) for index, one in enumerate(requests)]
        self._inbox.put([(handle, self._samplers(handle.request)) for handle in handles], self._work)
        return _read(handles, events)

    def close(self) -> None:
        """Ends all requests with an error and waits for the thread; nothing can be submitted afterwards."""
        self._inbox.close()

    def _check(self, request: Request) -> str | None:
        """Refuses what cannot be answered; returns the adapter of the conversation."""
        check_request(self.model.decoder_config, request)
        if error := self._scheduler.too_long(len(request.inputs.token_ids)):
            raise error
        return self.model.adapter_for(request.inputs.modalities)

    def _samplers(self, request: Request) -> list[Sampler]:
        """One for each answer. The caller's thread makes them: a constraint may take its time, or raise."""
        return [
            Sampler(
                request.sampling,
                request.inputs.token_ids,
                choice=choice,
                end_token_ids=self._eos_token_ids,
                constraint=None if request.constrain is None else request.constrain(),
            )
            for choice in range(request.sampling.n)
        ]

    def _work(self) -> None:
        with torch.inference_mode():
            while not self._is_done():
                try:
                    self._step()
                except Exception as error:  # a fault of the engine itself: nobody may wait for ever
                    self._fail_all(error)

    def _step(self) -> None:
        plan = self._scheduler.schedule()
        result = self._runner.run(plan.pieces)
        choices = choose_tokens([self._question(piece) for piece in result.pieces], result.logits)
        self._commit(plan, result, choices)

    def _question(self, piece: Piece) -> Question:
        return Question(self._answers[piece.row].sampler, piece.drafts, piece.num_choices)

    def _is_done(self) -> bool:
        """Takes new requests in and lets cancelled ones go; True, and the thread ends, if nothing is left to do."""
        submitted, is_closed = self._inbox.take()
        for handle, samplers in submitted:
            self._add(handle, samplers)
        for handle in list(self._rows):
            self._remove_unwanted(handle)
        if is_closed:
            self._fail_all(ClosedError("the engine is about to stop: it was closed before this request was finished"))
        return self._inbox.is_idle(has_rows=bool(self._rows))

    def _add(self, handle: Handle, samplers: Sequence[Sampler]) -> None:
        """Queues a row for each of the answers to a request."""
        config, inputs = self.model.decoder_config, handle.request.inputs
        for choice, sampler in enumerate(samplers):
            row = Row(
                self._num_rows,
                list(inputs.token_ids),
                max_length=min(len(inputs.token_ids) + sampler.sampling.max_tokens, config.max_position_embeddings),
                priority=handle.request.priority,
                media=inputs.media,
                adapter=handle.adapter,
                original_context=config.original_max_position_embeddings if config.rope_scaling else None,
                prompt_logprobs=handle.request.prompt_logprobs if choice == 0 else None,
                num_scored=handle.request.scored_from - 1,
            )
            self._scheduler.add(row)
            self._num_rows += 1
            self._rows.setdefault(handle, []).append(row)
            self._answers[row] = _Answer(handle, choice, sampler)

    def _commit(self, plan: Plan, result: StepResult, chosen: Sequence[list[Choice] | Exception]) -> None:
        """Keeps what was computed, hands the tokens out, and ends what is finished or failed."""
        for piece, choices, scores in zip(result.pieces, chosen, result.prompt_scores, strict=True):
            if piece.row not in self._answers:  # another answer to the same request failed in this step
                continue
            if isinstance(choices, Exception):
                self._fail(piece.row, choices)
            else:
                self._answers[piece.row].handle.keep_prompt(scores)
                self._keep(piece, choices)
        for row, error in result.failed:
            self._fail(row, error)
        for row in plan.outgrown:
            too_long = self._scheduler.too_long(len(row.token_ids))
            assert too_long is not None
            self._fail(row, too_long)

    def _keep(self, piece: Piece, choices: Sequence[Choice]) -> None:
        """Adds the tokens that were chosen to their row, up to the one that ends it, and hands them out."""
        row, answer = piece.row, self._answers[piece.row]
        seconds = time.perf_counter() - answer.handle.submitted
        tokens: list[GeneratedToken] = []
        for choice in choices:
            row.token_ids.append(choice.token_id)
            reason = _finish_reason(row, answer.sampler.end_token_ids)
            tokens.append(
                GeneratedToken(
                    choice=answer.choice,
                    token_id=choice.token_id,
                    finish_reason=reason,
                    rotary=piece.table.rotary,
                    log_probabilities=choice.log_probabilities,
                    seconds=seconds,
                )
            )
            if reason is not None:
                break
        self._scheduler.commit(piece, max(0, len(tokens) - 1))
        if tokens and tokens[-1].finish_reason is not None:
            self._remove([row])
        if answer.choice == 0 and row.found_tokens is not None:
            answer.handle.cached_tokens = row.found_tokens
        for token in tokens:
            answer.handle.put(token)
        if answer.handle not in self._rows:
            answer.handle.put(None)

    def _fail(self, row: Row, error: Exception) -> None:
        """Ends the request of a row, with all of its answers."""
        if row in self._answers:
            handle = self._answers[row].handle
            self._remove(self._rows[handle])
            handle.put(error)

    def _fail_all(self, error: Exception) -> None:
        """Ends all requests and starts over with an empty cache, whatever state the old one is in."""
        handles = list(self._rows)
        self._rows, self._answers = {}, {}
        self._scheduler.reset()
        self._runner.forget_all()
        for handle in handles:
            handle.put(error)

    def _remove_unwanted(self, handle: Handle) -> None:
        """Lets the answers of a request go that were cancelled; with the last of them it has ended."""
        self._remove([row for row in self._rows[handle] if not handle.is_wanted(self._answers[row].choice)])
        if handle not in self._rows:
            handle.put(None)

    def _remove(self, rows: Sequence[Row]) -> None:
        """Lets rows go that are finished, failed or cancelled."""
        for row in list(rows):
            handle = self._answers.pop(row).handle
            self._rows[handle].remove(row)
            if not self._rows[handle]:
                del self._rows[handle]
            self._scheduler.remove(row)
            self._runner.forget(row)


def _finish_reason(row: Row, end_token_ids: frozenset[int]) -> FinishReason | None:
    if row.token_ids[-1] in end_token_ids:
        return "stop"
    return "length" if row.is_full else None


def _read(handles: Sequence[Handle], events: SimpleQueue[tuple[int, Event]]) -> Iterator[tuple[int, GeneratedToken]]:
    """The tokens of several requests in the order in which they come."""
    num_open = len(handles)
    try:
        while num_open:
            index, event = events.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                num_open -= 1
            else:
                yield index, event
    finally:
        for handle in handles:
            handle.cancel()
