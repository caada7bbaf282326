"""Text, a picture, a sound and both in one batch: each conversation gets the tokens that it gets alone."""

from show import MEDIA

from phi4 import Assistant, Image, Message, Request, Sampling, Sound

QUESTIONS = (
    ("What is the capital of France?",),
    (Image(MEDIA / "shape.png"), "what is the red shape?"),
    (Sound(MEDIA / "music.flac"), "Transcribe the audio clip into text."),
    (Image(MEDIA / "asked.png"), Sound(MEDIA / "asked.flac")),
)

if __name__ == "__main__":
    assistant, sampling = Assistant.load("nano"), Sampling(max_tokens=40)
    conversations = [[Message("user", question)] for question in QUESTIONS]
    requests = [Request(assistant.processor.prepare(one), sampling) for one in conversations]
    together: list[list[int]] = [[] for _ in requests]
    for index, token in assistant.engine.generate(requests):
        together[index].append(token.token_id)
    for one, token_ids in zip(conversations, together, strict=True):
        alone = assistant.reply(one, sampling=sampling).answer
        same = list(alone.token_ids) == token_ids[: len(alone.token_ids)]
        print(f"{alone.text} [adapter {alone.adapter}; the same together: {same}]")
