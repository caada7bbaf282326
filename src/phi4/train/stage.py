"""A stage of training as a row of data: what trains, on what, how long and how fast."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from phi4.data.batches import Augment
from phi4.errors import ConfigError

# The part that is a whole language model.
LANGUAGE = "language"

# With a larger one, the seeds of dropout, which the trainer makes of seed, step and row, would leave 64 bits.
MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Answers:
    """Cross-entropy of the assistant's tokens, end tokens included.

    Attributes:
        spelled: write the answers letter by letter. What is to be read may be words that nobody knows, and a language
            model that writes pieces of words guesses those that it does.
    """

    spelled: bool = False

    def __repr__(self) -> str:
        # A recipe's digest is made of it; runs that began before there was the option go on.
        return "Answers(spelled=True)" if self.spelled else "Answers()"


@dataclass(frozen=True)
class Text:
    """Cross-entropy of every token of texts, each as a document without a chat around it, end token included."""


@dataclass(frozen=True)
class Preference:
    """Direct preference optimisation: the chosen answer against the rejected one (arXiv 2305.18290, equation 7).

    Attributes:
        beta: how much a deviation from the model that the stage began with costs.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise ConfigError(f"beta is {self.beta}; a preference needs one above 0, such as 0.1")


@dataclass(frozen=True)
class Contrastive:
    """SigLIP's sigmoid loss between whole pictures and the texts of their answers (arXiv 2303.15343).

    Attributes:
        grounded: compare what the projector gives with the language model's embeddings of the texts, instead of what
            the tower's head gives with vectors of the objective's own.
        guide: file in the data folder with a network whose features the tower imitates at the same time; None for none.
    """

    grounded: bool = False
    guide: str | None = None


@dataclass(frozen=True)
class Ctc:
    """Connectionist temporal classification of the answer's text over an encoder's outputs.

    Attributes:
        modality: "speech", or "vision" for one line of text.
        num_pieces: size of the vocabulary of word pieces, which is learned from the training answers.
        grounded: compare what the projector gives with the language model's embeddings of the pieces, instead of a
            linear layer of the objective's own.
    """

    modality: str
    num_pieces: int
    grounded: bool = False


Objective = Answers | Text | Preference | Contrastive | Ctc


@dataclass(frozen=True)
class Source:
    """One data set of a stage.

    Attributes:
        dataset: name of its folder of shards.
        weight: its share of the records, relative to the other sources.
        objective: what is minimised on its records.
    """

    dataset: str
    weight: float = 1.0
    objective: Objective = Answers()


@dataclass(frozen=True)
class Stage:
    """One stage. The optimiser's defaults are those of the published fine-tuning scripts (facts sheet 8.7).

    Attributes:
        name: of the stage.
        trains: beginnings of parameter names, such as "vision.encoder"; "NAME.adapter" is a whole LoRA. All other
            parameters are frozen. "language", alone, is a language model without modalities.
        sources: the data.
        steps: updates of the weights.
        rows_per_step: packed rows of one update, over all processes.
        tokens_per_row: most tokens of a row.
        learning_rate: highest; it rises linearly in `warmup_steps` and falls linearly to zero.
        rate_factors: what the rate is multiplied by for parts of `trains` that are to learn slower or faster.
        copies: parameters that start as copies of others, by the beginnings of their names (target -> source).
        augment: changes records as they are drawn.
        recompute: saves memory by running each layer again in the backward pass.
        valid_every: steps between validations.
        valid_records: most records of each source that a validation takes.
        save_every: steps between checkpoints.
        seed: of order, augmentation, dropout and new weights of objectives.
        about: what the data are, for people.
    """

    name: str
    trains: tuple[str, ...]
    sources: tuple[Source, ...]
    steps: int
    learning_rate: float
    rows_per_step: int = 16
    tokens_per_row: int = 8192
    warmup_steps: int = 50
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-7
    max_grad_norm: float = 1.0
    rate_factors: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    copies: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    augment: Augment | None = None
    recompute: bool = False
    valid_every: int = 500
    valid_records: int = 64
    save_every: int = 500
    seed: int = 0
    about: str = ""

    def __post_init__(self) -> None:
        datasets = [source.dataset for source in self.sources]
        if not datasets or len(set(datasets)) < len(datasets):
            raise ConfigError(f"stage {self.name} needs sources with different data sets, not {datasets}")
        if not self.trains:
            raise ConfigError(f"stage {self.name} trains nothing; name parts, such as vision.projector")
        if LANGUAGE in self.trains and len(self.trains) > 1:
            raise ConfigError(
                f"stage {self.name} trains {', '.join(self.trains)}; the language model trains alone, since packs "
                "belong to the very weights that they were trained on"
            )
        for name in ("steps", "rows_per_step", "tokens_per_row", "valid_every", "save_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"stage {self.name}: {name} is {getattr(self, name)}; at least 1 is needed")
        for name in ("warmup_steps", "valid_records"):
            if getattr(self, name) < 0:
                raise ConfigError(f"stage {self.name}: {name} is {getattr(self, name)}; it cannot be negative")
        strange = {part: factor for part, factor in self.rate_factors.items() if part not in self.trains or factor <= 0}
        if strange:
            raise ConfigError(f"stage {self.name}: rate_factors {strange} must be positive and of parts that it trains")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"stage {self.name}: seed is {self.seed}; it must be 0 to {MAX_SEED}")

    def learning_rate_at(self, step: int) -> float:
        """The rate of an update: a linear rise, then a linear fall that would reach zero after the last one."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        return self.learning_rate * max(0.0, (self.steps - step) / max(1, self.steps - self.warmup_steps))
