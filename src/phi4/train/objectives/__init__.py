"""What a stage minimises. Each objective is a module, so that what it learns for itself is saved and resumed too."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from phi4.data.record import Record
from phi4.errors import ConfigError
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal
from phi4.processing.tokenizer import Tokenizer
from phi4.train.objectives.answers import AnswerLoss
from phi4.train.objectives.contrastive import ContrastiveLoss
from phi4.train.objectives.ctc import CtcLoss
from phi4.train.objectives.guide import load_guide
from phi4.train.objectives.loss import Loss, ObjectiveLoss
from phi4.train.objectives.preference import PreferenceLoss
from phi4.train.stage import Answers, Contrastive, Ctc, Objective, Preference, Stage, Text

__all__ = ["Loss", "ObjectiveLoss", "build_objectives"]


def build_objectives(
    stage: Stage,
    model: Phi4Mini | Phi4Multimodal,
    data: Path,
    datasets: Mapping[str, Sequence[Record]],
    tokenizer: Tokenizer,
) -> dict[str, ObjectiveLoss]:
    """Builds the objective of every source, by the name of its data set; equal objectives are one and the same.

    Args:
        stage: says which source has which objective.
        model: what is trained.
        data: the folder of all data.
        tokenizer: the language model's.
        datasets: the training records of each source: some objectives learn a vocabulary from their answers.

    Raises:
        ConfigError: an objective is of an encoder, and the model has none.
    """
    built: dict[Objective, ObjectiveLoss] = {}
    for objective in dict.fromkeys(source.objective for source in stage.sources):
        names = [source.dataset for source in stage.sources if source.objective == objective]
        match objective:
            case Answers() | Text():
                built[objective] = AnswerLoss(stage.recompute)
                continue
            case Preference(beta):
                built[objective] = PreferenceLoss(model, beta, stage.recompute)
                continue
        if not isinstance(model, Phi4Multimodal):
            raise ConfigError(f"{objective} is of an encoder, and this model has none; add a pack that has one")
        answers = [record.answer for name in names for record in datasets[name]]
        match objective:
            case Contrastive(grounded, guide):
                embedding = tokenizer if grounded else None
                loaded = load_guide(data / guide) if guide else None
                built[objective] = ContrastiveLoss(model, answers, embedding, loaded)
            case Ctc(modality, num_pieces, grounded):
                embedding = tokenizer if grounded else None
                built[objective] = CtcLoss(model, modality, num_pieces, answers, embedding)
    return {source.dataset: built[source.objective] for source in stage.sources}
