"""mistral.rs on the CPU, for peers.py; the weights are a directory with the UQFF file of mistralrs_q4k_weights.py.

Its Python interface takes one request at a time, of text, and tells of single tokens only where they are text. So
prompts are words of one token each, and when the first token was there is by its own clock, which counts milliseconds.
Several rows are choices of one request, behind a prompt of one token: with more, mistral.rs 0.9.5 fails in its head
("input tensor is not contiguous").
"""

import time
from importlib.metadata import version
from pathlib import Path

from measure import FIRST_ID, LAST_ID, Prompts, read_arguments, report
from mistralrs import Architecture, CompletionRequest, Runner, Which


def single_words(runner: Runner) -> list[str]:
    """Texts that stay one token each wherever they stand: a space and small letters."""
    texts = (runner.detokenize_text([number], False) for number in range(FIRST_ID, LAST_ID + 1))
    return [text for text in texts if text[0] == " " and text[1:].isascii() and text[1:].isalpha() and text.islower()]


def main() -> None:
    weights, sizes = read_arguments()
    (path,) = Path(weights).glob("*-0.uqff")
    which = Which.Plain(weights, arch=Architecture.Phi3, from_uqff=str(path))
    runner = Runner(which, max_seqs=sizes.rows, prefix_cache_n=0)
    words = single_words(runner)

    def run(prompts: Prompts, steps: int) -> tuple[float, float]:
        ids = prompts[0] if len(prompts) == 1 else prompts[0][:1]
        request = CompletionRequest(
            "".join(words[number % len(words)] for number in ids),
            "",
            max_tokens=steps + 1,
            temperature=0.0,
            ignore_eos=True,
            n_choices=len(prompts),
        )
        usage = runner.send_completion_request(request).usage
        last = time.perf_counter()
        if (usage.prompt_tokens, usage.completion_tokens) != (len(ids), steps + 1):
            raise RuntimeError(f"{usage.prompt_tokens} and {usage.completion_tokens} tokens: other than asked for")
        return last - usage.total_completion_time_sec, last

    report(version("mistralrs"), sizes, run)


if __name__ == "__main__":
    main()
