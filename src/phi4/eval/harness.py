"""The model class for lm-evaluation-harness: `phi4-lm-eval --model phi4 --model_args model=nano --tasks arc_easy`.

lm-eval finds models by name only among its own, so that the command imports this module and then is lm-eval's.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Its own models stay known only if they are registered first: it does so by itself only where there are none yet.
import lm_eval.models  # noqa: F401
from lm_eval.__main__ import cli_evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from phi4.engine.request import Request
from phi4.eval.ask import ITEMS_AT_ONCE, answer_together, max_scored_tokens
from phi4.eval.harness_options import HarnessModel, read_settings
from phi4.eval.likelihood import Continuation, Likelihood, encode_windows, score_continuations
from phi4.inputs import ModelInputs


@register_model("phi4")
class Phi4LM(HarnessModel, TemplateLM):  # type: ignore[misc]
    """The class for all of its tasks.

    Benchmarks are trusted text: control tokens that they or a chat template write count as such.
    """

    @property
    def eot_token_id(self) -> int:
        """The token before a text that nothing comes before."""
        return self.assistant.loaded.generation.prefix_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of a text; our models put none in front."""
        return self.assistant.processor.tokenizer.encode(string, allow_special=True)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        pieces = [Continuation(tuple(context), tuple(scored)) for _, context, scored in requests]
        scores = self._scored(pieces, disable_tqdm)
        return [(score.log_likelihood, score.is_greedy) for score in scores]

    def _scored(self, pieces: Sequence[Continuation], disable_tqdm: bool) -> Iterator[Likelihood]:
        with tqdm(total=len(pieces), desc="log-likelihoods", disable=disable_tqdm) as bar:
            for start in range(0, len(pieces), ITEMS_AT_ONCE):
                yield from score_continuations(self.assistant.engine, pieces[start : start + ITEMS_AT_ONCE])
                bar.update(min(ITEMS_AT_ONCE, len(pieces) - start))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts."""
        tokenizer, length = self.assistant.processor.tokenizer, max_scored_tokens(self.assistant)
        windows = [
            encode_windows(tokenizer, request.args[0], self.eot_token_id, length, allow_special=True)
            for request in requests
        ]
        scores = self._scored([piece for pieces in windows for piece in pieces], disable_tqdm)
        return [sum(next(scores).log_likelihood for _ in pieces) for pieces in windows]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers to prompts, each up to its stop strings."""
        answers: list[str] = []
        with tqdm(total=len(requests), desc="answers", disable=disable_tqdm) as bar:
            for start in range(0, len(requests), ITEMS_AT_ONCE):
                group = [self._asked(*request.args) for request in requests[start : start + ITEMS_AT_ONCE]]
                for texts in answer_together(self.assistant, group):
                    answers += texts
                    bar.update(1)
        return answers

    def _asked(self, context: str, settings: Mapping[str, Any]) -> tuple[Request, Sequence[str]]:
        sampling, stop = read_settings(settings)
        return Request(ModelInputs(tuple(self.tok_encode(context))), sampling), stop

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation in the model's layout."""
        return self.assistant.processor.template.render(
            chat_history, tools=None, add_generation_prompt=add_generation_prompt
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's source, which the harness writes into its results."""
        return self.assistant.processor.template.source if chat_template else None

    @property
    def tokenizer_name(self) -> str:
        """Names the layout in the harness's caches."""
        return self.named.replace("/", "__")


def main() -> None:
    """lm-eval's own command line, which knows the model `phi4` now."""
    cli_evaluate()
