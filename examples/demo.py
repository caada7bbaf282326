"""Pulls nano and answers three questions: what `make demo` runs."""

from phi4 import Assistant, Sampling

QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Why is the sky blue? Answer in two sentences.",
)

if __name__ == "__main__":
    assistant = Assistant.load("nano")
    for question in QUESTIONS:
        print(f"> {question}")
        stream = assistant.stream(question, sampling=Sampling(max_tokens=100))
        for piece in stream:
            print(piece, end="", flush=True)
        answer = stream.answer
        print(f"\n  [{len(answer.token_ids)} tokens in {answer.seconds:.1f} s]\n")
