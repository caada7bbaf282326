"""Phi-4-Mini learns language: pre-training, instructions, preferences (facts sheet 8.1, 8.5).

Published for Phi-4-Mini are 5 T tokens of pre-training, the law of its learning rate without the constant, which
`phi4 rate-law` fits, and the sizes of the reasoning experiment's later stages. Batch, rates and weight decay of
pre-training are those published for the larger Phi-4 (arXiv 2412.08905, section 3): linear warm-up and decay from 3e-4,
weight decay 0.1, 5,760 sequences of 4K. What else stands here is chosen, and said to be.

All weights of the language model train, on masters of fp32. Each stage takes the directory that the one before wrote,
the first a random one from `phi4 init mini`. Sources are folders of shards with the names below.
"""

from phi4.train.stage import Preference, Source, Stage, Text


def pretrain() -> Stage:
    """Stage 1: every token of texts.

    Not published: the warm-up, and the mixture, which `phi4 curate` makes.
    """
    return Stage(
        name="language pretrain",
        about="curated texts, as documents without a chat around them",
        trains=("language",),
        sources=(Source("text", 1, Text()),),
        # 212,000 x 5,760 x 4,096 are 5 T tokens.
        steps=212_000,
        rows_per_step=5_760,
        tokens_per_row=4_096,
        learning_rate=3e-4,
        warmup_steps=2_000,
        weight_decay=0.1,
        recompute=True,
    )


def sft() -> Stage:
    """Stage 2: the answers of conversations.

    200 K samples are published for the reasoning experiment. Not published: batch and steps, here about two epochs of
    answers of some 2,000 tokens; the rate is that of the fine-tuning scripts (8.7).
    """
    return Stage(
        name="language sft",
        about="conversations",
        trains=("language",),
        sources=(Source("conversations"),),
        steps=1_500,
        rows_per_step=64,
        tokens_per_row=8_192,
        learning_rate=4e-5,
        recompute=True,
    )


def dpo() -> Stage:
    """Stage 3: the chosen answer against the rejected one.

    300 K preferences are published for the reasoning experiment. Not published: beta, rate, warm-up, batch; they are
    those of the method's paper (arXiv 2305.18290, appendix B), if a row holds about four pairs.
    """
    return Stage(
        name="language dpo",
        about="answers that were compared",
        trains=("language",),
        sources=(Source("preferences", 1, Preference(beta=0.1)),),
        # 4,700 x 16 x 4 are 300 K pairs.
        steps=4_700,
        rows_per_step=16,
        tokens_per_row=16_384,
        learning_rate=1e-6,
        warmup_steps=150,
        recompute=True,
    )
