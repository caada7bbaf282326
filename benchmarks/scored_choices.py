"""How many tokens a task with given answers reads, and how many more it would read if each answer were scored alone.

python benchmarks/scored_choices.py nano --text FILE... [--questions 32] [--shots 0 5]

A question is a paragraph without its end, its four answers are that end and three others.
"""

import argparse
from pathlib import Path

from phi4 import Assistant
from phi4.eval.ask import ITEMS_AT_ONCE, ask_items
from phi4.eval.examples import Examples
from phi4.eval.likelihood import encode_continuation
from phi4.eval.task import Choose, Item

CHOICES = 4
MIN_WORDS, ANSWER_WORDS = 24, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--text", type=Path, nargs="+", required=True)
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--shots", type=int, nargs="+", default=[0, 5])
    arguments = parser.parse_args()
    items = questions([file.read_text() for file in arguments.text])
    for shots in arguments.shots:
        assistant = Assistant.load(arguments.model, packs=())
        examples = Examples("choices", {"": tuple(items[:shots])} if shots else {}, {})
        asked = [examples.before(item) for item in items[shots : shots + arguments.questions]]
        for start in range(0, len(asked), ITEMS_AT_ONCE):
            list(ask_items(assistant, Choose(), asked[start : start + ITEMS_AT_ONCE]))
        whole, reused = sum(num_tokens(assistant, item) for item in asked), assistant.engine.counts.reused_tokens
        print(f"{len(asked)} questions, {shots} shots: {whole:,} tokens, {reused:,} of them found in the cache,")
        print(f"{whole - reused:,} computed, {whole / (whole - reused):.1f} times less")


def questions(texts: list[str]) -> list[Item]:
    """One for each paragraph that is long enough."""
    paragraphs = [paragraph.split() for text in texts for paragraph in text.split("\n\n")]
    split = [(words[:-ANSWER_WORDS], words[-ANSWER_WORDS:]) for words in paragraphs if len(words) >= MIN_WORDS]
    ends = [" " + " ".join(end) for _, end in split]
    return [
        Item(str(number), context=" ".join(begin), choices=tuple((ends * 2)[number : number + CHOICES]))
        for number, (begin, _) in enumerate(split)
    ]


def num_tokens(assistant: Assistant, item: Item) -> int:
    tokenizer, prefix_id = assistant.processor.tokenizer, assistant.loaded.generation.prefix_id
    pieces = [encode_continuation(tokenizer, item.context, choice, prefix_id) for choice in item.choices]
    return sum(len(one.context) + len(one.scored) for one in pieces)


if __name__ == "__main__":
    main()
