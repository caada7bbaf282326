"""Phi-4-Multimodal learns to hear: the two published speech stages (facts sheet 8.3).

Published are what trains, the data with their amounts, rates and steps; the optimiser, `Stage`'s default, is that of
the fine-tuning script for speech (8.7), which recomputes layers too. Batch sizes are not published; they are chosen so
that the published steps take the published data about once.

Stage 1 began with the encoder of an attention encoder-decoder trained on speech recognition and with a new projector:
`phi4 new-pack speech --encoder-from` makes such a pack. Sizes and LoRA (rank 320, alpha 640, dropout 0.01; 6.1) come
from the preset `multimodal`. Stage 2 takes the pack of stage 1. Sources are folders of shards with the names below.
"""

from phi4.train.stage import Source, Stage


def align() -> Stage:
    """Stage 1: the encoder and the projector named "speech" learn what the language model expects.

    Not published: the batch. 2 M hours are 90 G audio tokens of 80 ms (5.4) and about 20 G tokens of text.
    """
    return Stage(
        name="speech align",
        about="recognition: 2 M hours with transcripts in 8 languages",
        trains=("speech.encoder", "speech.projectors.speech"),
        sources=(Source("transcripts"),),
        # 8.3.
        steps=50_000,
        learning_rate=4e-5,
        # 50,000 x 256 x 8,192 are 105 G tokens. A clip of at most 30 s has 375 (5.4).
        rows_per_step=256,
        tokens_per_row=8_192,
        recompute=True,
    )


def instruct() -> Stage:
    """Stage 2: the adapter and the projector named "speech" follow instructions; the encoder is frozen.

    Not published: the batch, and how much safety data there were. The other weights are millions of examples, 100 in
    all (8.3); at 50,000 steps that is 2,000 examples each, of about 260 tokens: most last some seconds.
    """
    return Stage(
        name="speech instruct",
        about="about 100 M examples, weighted: transcripts, translations, questions, summaries, sounds, safety",
        trains=("speech.adapter", "speech.projectors.speech"),
        sources=(
            # 20K h in-house and 20K h public.
            Source("transcription_instructions", 28.0),
            # 30K h, both directions, direct and with a chain of thought.
            Source("translation_instructions", 28.0),
            Source("spoken_questions", 26.0),
            # English, up to 30 minutes.
            Source("spoken_summaries", 1.0),
            Source("audio_understanding", 17.0),
            Source("speech_safety", 1.0),
        ),
        # 8.3.
        steps=50_000,
        learning_rate=1e-4,
        rows_per_step=16,
        # 30 minutes are 22,500 tokens (5.4), with room for a summary and other examples.
        tokens_per_row=32_768,
        recompute=True,
    )
