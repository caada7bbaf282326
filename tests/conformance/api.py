"""A server under test, as OpenAI's client sees it."""

from dataclasses import dataclass
from typing import Any

import openai


@dataclass(frozen=True)
class Api:
    """A server under test."""

    client: openai.OpenAI
    model: str

    def chat(self, messages: list[dict[str, Any]], **fields: Any) -> Any:
        """A greedy answer of at most 16 tokens, unless the fields say otherwise."""
        asked: Any = {"temperature": 0, "max_tokens": 16} | fields | {"messages": messages}
        return self.client.chat.completions.create(model=self.model, **asked)

    def text(self, messages: list[dict[str, Any]], **fields: Any) -> str:
        """The text of such an answer."""
        content: str = self.chat(messages, **fields).choices[0].message.content
        return content

    def prompt_tokens(self, messages: list[dict[str, Any]]) -> int:
        """How many tokens a conversation takes."""
        count: int = self.chat(messages, max_tokens=1).usage.prompt_tokens
        return count

    def tokenize(self, text: str) -> list[int]:
        """Token ids of a text, control tokens included."""
        root = str(self.client.base_url).removesuffix("/").removesuffix("/v1")
        reply: Any = self.client.post(f"{root}/tokenize", body={"model": self.model, "prompt": text}, cast_to=object)
        tokens: list[int] = reply["tokens"]
        return tokens

    def bias(self, text: str, amount: float) -> dict[str, float]:
        """A logit_bias for the tokens of each character of a text."""
        return {str(token_id): amount for character in text for token_id in self.tokenize(character)}
