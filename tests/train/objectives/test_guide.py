from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from phi4.data.example import Example
from phi4.data.record import Record
from phi4.errors import DataError
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.masters import Masters
from phi4.train.objectives.contrastive import ContrastiveLoss
from phi4.train.objectives.guide import STRIDE_PX, Guide, load_guide
from phi4.train.parts import select_trained
from train.conftest import Setting
from train.stages import contrast
from train.toys import COLOURS, colours

Encode = Callable[[Record], Example]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "guide.safetensors"
    save_file(Guide().state_dict(), path)
    return path


def test_it_has_one_vector_for_each_patch_of_a_tower(file: Path) -> None:
    assert load_guide(file)(torch.zeros(2, 3, 6 * STRIDE_PX, 6 * STRIDE_PX)).shape == (2, 256, 6, 6)
    assert load_guide(file).standardised(torch.zeros(2, 3, 56, 56), side=4).shape == (2, 16, 256)


def test_imitated_features_are_standardised_and_do_not_depend_on_the_batch(file: Path) -> None:
    guide = load_guide(file)
    pictures = torch.randn(3, 3, 48, 48)
    plain = guide.standardised(pictures, 6)
    guide.mean.fill_(1.0)
    guide.deviation.fill_(2.0)
    torch.testing.assert_close(guide.standardised(pictures, 6), (plain - 1.0) / 2.0)
    torch.testing.assert_close(guide.standardised(pictures[:1], 6)[0], guide.standardised(pictures, 6)[0])


@pytest.mark.parametrize("content", [None, b"no tensors at all"], ids=["missing", "damaged"])
def test_a_file_that_is_no_guide_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "guide.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"guide\.safetensors is not a guide"):
        load_guide(path)


def test_a_tower_learns_to_imitate_it_and_the_guide_itself_does_not_change(
    setting: Setting, file: Path, encode: Encode
) -> None:
    model = setting.load(dtype=torch.float32).model
    assert isinstance(model, Phi4Multimodal)
    guide = load_guide(file)
    before = {name: tensor.clone() for name, tensor in guide.state_dict().items()}
    objective = ContrastiveLoss(model, list(COLOURS), guide=guide)
    examples = [encode(record) for record in colours(8, "train")]
    trained = select_trained(model, ["vision.encoder"])
    own = {name: parameter for name, parameter in objective.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("guide") for name in own)
    masters = Masters({**trained, **own}, contrast())
    losses = []
    for _ in range(20):
        loss = objective(model, examples)
        losses.append(float(loss.total.detach()))
        loss.total.backward()
        masters.accumulate()
        masters.update(2e-3)
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(before[name], tensor) for name, tensor in guide.state_dict().items())
