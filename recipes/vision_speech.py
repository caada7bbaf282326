"""Phi-4-Multimodal answers spoken questions about pictures: the published joint stage (facts sheet 8.4).

It comes after all stages of `recipes/vision.py` and `recipes/speech.py` and takes the packs of both. Published are what
trains and what the data were made of; steps, batch, rate and weights are not.
"""

from phi4.train.stage import Source, Stage


def joint() -> Stage:
    """The vision adapter, projector and tower; all of speech is frozen.

    Pictures and sounds together take the speech projector named "vision" (6.3). No stage trains it: the audio projector
    is frozen here (8.4), and yet the checkpoint holds this second one (5.3). The two agree if it is a copy of the
    projector named "speech", which the speech stages trained; so it begins as one and stays one. The speech pack is
    written again for its sake, and nothing else in it changes. Whoever goes on from the released packs sets `copies` to
    nothing: their second projector is what the release has.

    Not published: steps, batch, weights, and whether written questions stay in the mixture; here they do, so that they
    are not forgotten.
    """
    return Stage(
        name="vision-speech joint",
        about="vision instructions, their questions spoken by synthetic voices and filtered by word error rate",
        trains=(
            "vision.adapter",
            "vision.projector",
            # Count as parts of the projector, as in recipes/vision.py.
            "vision.separator",
            "vision.row_separator",
            "vision.encoder",
        ),
        copies={"speech.projectors.vision": "speech.projectors.speech"},
        sources=(Source("spoken_picture_questions", 2.0), Source("picture_instructions", 1.0)),
        # Chosen: a tenth of the steps of vision's stage 3, which trains the same parts.
        steps=3_000,
        rows_per_step=512,
        tokens_per_row=16_384,
        # The rate of the fine-tuning script for vision (8.7).
        learning_rate=4e-5,
        recompute=True,
    )
