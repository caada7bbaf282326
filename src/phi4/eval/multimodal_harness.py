"""The model classes for lmms-eval: `lmms-eval eval --model phi4 --model_args model=nano --tasks ocrbench`."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from lmms_eval.api.model import lmms
from tqdm import tqdm

from phi4.engine.request import Request
from phi4.errors import InputError
from phi4.eval.ask import ITEMS_AT_ONCE, answer_together
from phi4.eval.harness_options import HarnessModel, read_settings
from phi4.eval.likelihood import score_requests, scored_request
from phi4.processing.messages import Image, Message, Part, Sound

SOUND_SUFFIXES = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".webm")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tiff", ".webp")
# One conversation and a task's settings of its answer.
Asked = tuple[Sequence[Message], Mapping[str, Any]]


class _Phi4(HarnessModel, lmms):  # type: ignore[misc]
    """What both classes do."""

    def _answer(self, asked: Iterable[Asked]) -> Iterator[str]:
        """Answers to conversations, as many together as have their media in memory at once."""
        waiting = iter(asked)
        while group := [self._request(*one) for one in islice(waiting, ITEMS_AT_ONCE)]:
            for texts in answer_together(self.assistant, group):
                yield from texts

    def _request(self, turns: Sequence[Message], settings: Mapping[str, Any]) -> tuple[Request, Sequence[str]]:
        sampling, stop = read_settings(settings)
        return Request(self.assistant.processor.prepare(turns), sampling), stop

    def _document(self, number: int, task: str, split: str) -> Any:
        return self.task_dict[task][split][number]


class Phi4Chat(_Phi4):
    """For tasks that write messages; a request is (context, doc_to_messages, settings, document, task, split)."""

    is_simple = False

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers to conversations."""
        asked = (
            (read_turns(doc_to_messages(self._document(*place))), settings)
            for _, doc_to_messages, settings, *place in (request.args for request in requests)
        )
        return list(tqdm(self._answer(asked), total=len(requests), desc="answers"))

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """Answers to conversations of which the task writes each turn when it has seen the answers before."""
        return [self._rounds(*request.args[1:]) for request in tqdm(requests, desc="conversations")]

    def _rounds(self, doc_to_messages: Callable[..., Any], settings: Any, *place: Any) -> list[str]:
        document, answers, info = self._document(*place), list[str](), None
        messages = doc_to_messages(document)
        while True:
            answers += self._answer([(read_turns(messages), settings)])
            seen = {"round_idx": len(answers), "previous_output": list(answers), "previous_round_info": info}
            # (messages, whether it is over, answers, info for the next round); anything else ends it, too.
            following = doc_to_messages(document, **seen)
            if not isinstance(following, tuple) or len(following) != 4 or following[1]:
                return answers
            messages, info = following[0], following[3]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """The harness writes no such tasks as messages."""
        raise InputError("tasks that compare choices are not written as messages; run lmms-eval with --force_simple")


class Phi4Simple(_Phi4):
    """For all tasks; a request is (context, settings, doc_to_visual, document, task, split)."""

    is_simple = True

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Answers to questions about media."""
        asked = (
            (self._question(context, doc_to_visual, *place), settings)
            for context, settings, doc_to_visual, *place in (request.args for request in requests)
        )
        return list(tqdm(self._answer(asked), total=len(requests), desc="answers"))

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[list[str]]:
        """Simple tasks of several rounds write their later turns in ways of their own."""
        raise InputError("conversations of several rounds are for the chat class; run lmms-eval without --force_simple")

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Minus the log-likelihood of each answer, as lmms-eval wants it: its smallest is the one chosen."""
        scores: list[tuple[float, bool]] = []
        for start in tqdm(range(0, len(requests), ITEMS_AT_ONCE), desc="log-likelihoods"):
            group = [self._scored(*request.args) for request in requests[start : start + ITEMS_AT_ONCE]]
            found = score_requests(self.assistant.engine, group)
            scores += [(-one.log_likelihood, one.is_greedy) for one in found]
        return scores

    def _scored(self, context: str, answer: Any, doc_to_visual: Any = None, *place: Any) -> Request:
        """The answer behind a question in the layout of chats; of an unconditional one the question is empty."""
        text = str(answer(self._document(*place)) if callable(answer) else answer).strip()
        prompt = self.assistant.processor.prepare(self._question(context, doc_to_visual, *place))
        token_ids = self.assistant.processor.tokenizer.encode(text, allow_special=False)
        if not token_ids:
            raise InputError(f"there is nothing to score: the answer {text!r} has no tokens")
        inputs = replace(prompt, token_ids=(*prompt.token_ids, *token_ids))
        return scored_request(inputs, len(prompt.token_ids))

    def _question(self, context: str, doc_to_visual: Any, *place: Any) -> tuple[Message, ...]:
        media = () if doc_to_visual is None else doc_to_visual(self._document(*place)) or ()
        return (Message("user", (*map(read_medium, media), context)),)


def read_turns(messages: Sequence[Mapping[str, Any]]) -> tuple[Message, ...]:
    """Messages as the harness writes them, media with a `url` that may hold anything."""
    return tuple(Message(turn["role"], tuple(map(_read_part, turn["content"]))) for turn in messages)


def _read_part(part: Mapping[str, Any]) -> Part:
    if part["type"] == "text":
        return str(part["text"])
    if part["type"] == "video":
        raise InputError("this model reads pictures and sounds, no videos; choose other tasks")
    return read_medium(part["url"])


def read_medium(value: Any) -> Part:
    """A picture or a sound in one of the forms that the harness hands out.

    Args:
        value: a picture of Pillow; the path of a file; samples with their rate, as `datasets` decodes a sound; or the
            decoder that it has in their place.

    Raises:
        InputError: it is neither, such as a video.
    """
    if isinstance(value, PIL.Image.Image):
        return Image(value)
    if isinstance(value, Mapping) and value.get("array") is not None:
        return Sound((np.asarray(value["array"], np.float32), int(value["sampling_rate"])))
    if hasattr(value, "get_all_samples"):
        samples = value.get_all_samples()
        return Sound((np.asarray(samples.data, np.float32).T, int(samples.sample_rate)))
    path = value.get("path") or value.get("url") if isinstance(value, Mapping) else value
    if isinstance(path, str):
        suffix = Path(path).suffix.lower()
        if suffix in PICTURE_SUFFIXES:
            return Image(path)
        if suffix in SOUND_SUFFIXES:
            return Sound(path)
    named = path if isinstance(path, str) else type(value).__name__
    raise InputError(f"this model reads pictures and sounds, not {named}")
