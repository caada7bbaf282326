"""The mean of packs that went apart from one: `python -m recipes.nano.average --pack FILE --pack FILE --out FILE`.

Adapters that were trained apart, by other drawings in another order, err in different ways; their mean errs less.
"""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from phi4.checkpoint.keymap import modality_of
from phi4.checkpoint.nano import pull_nano
from phi4.checkpoint.packs import Pack, read_pack, save_pack, stages_of
from phi4.checkpoint.weights import load_model
from phi4.errors import CheckpointError
from recipes.nano.command import OutPack, run
from recipes.nano.gather import multimodal


def main(
    pack: Annotated[list[Path], typer.Option(help="The packs, of one modality and with the same configuration.")],
    out: OutPack,
) -> None:
    """Writes a pack whose weights are the means of those of others, and whose history has the stages of all."""
    sources = [read_pack(path) for path in pack]
    first = sources[0]
    for other in sources[1:]:
        if (other.modality, other.config, other.base_digest) != (first.modality, first.config, first.base_digest):
            raise CheckpointError(
                f"{other.path} and {first.path} have no mean: modality, configuration or base differ; name packs that "
                "were trained apart from the same one"
            )
    models = [multimodal(load_model(pull_nano(), torch.float32, packs=[path])) for path in pack]
    parameters = [dict(model.named_parameters()) for model in models]
    with torch.no_grad():
        for name, parameter in parameters[0].items():
            if modality_of(name) == first.modality:
                parameter.copy_(torch.stack([own[name] for own in parameters]).mean(dim=0))
    out.parent.mkdir(parents=True, exist_ok=True)
    history = {"stages": stages_of_all(sources)}
    save_pack(models[0], first.modality, out, torch.bfloat16, first.base_digest, history, first.preprocessor)


def stages_of_all(packs: list[Pack]) -> list[dict[str, Any]]:
    """What the packs went through: what all have in common once, and then what each has by itself."""
    histories = [stages_of(pack.trained_on) for pack in packs]
    shared = 0
    while all(len(own) > shared and own[shared] == histories[0][shared] for own in histories):
        shared += 1
    return histories[0][:shared] + [stage for own in histories for stage in own[shared:]]


if __name__ == "__main__":
    run(main)
