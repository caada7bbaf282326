import pytest
import torch
from torch.nn import functional

from phi4.train.objectives.embeddings import NearestText, text_embeddings
from train.conftest import Setting

TEXTS = ["low", "middle", "higher still"]


@pytest.fixture
def embeddings(setting: Setting) -> torch.Tensor:
    return text_embeddings(setting.load(dtype=torch.float32).model, setting.tokenizer(), TEXTS)


def test_a_text_is_the_mean_of_its_tokens(setting: Setting, embeddings: torch.Tensor) -> None:
    model, tokenizer = setting.load(dtype=torch.float32).model, setting.tokenizer()
    for text, embedding in zip(TEXTS, embeddings, strict=True):
        tokens = model.embed(torch.tensor(tokenizer.encode(text, allow_special=False)))
        torch.testing.assert_close(embedding, tokens.mean(dim=0))


def test_texts_are_told_apart_as_seen_from_the_mean_of_all_texts(embeddings: torch.Tensor) -> None:
    nearest = NearestText(embeddings)
    vectors = torch.randn(4, embeddings.shape[1])
    expected = functional.cosine_similarity(
        (vectors - embeddings.mean(0))[:, None], embeddings - embeddings.mean(0), -1
    )
    torch.testing.assert_close(nearest.cosines(vectors), expected)
    assert nearest.cosines(embeddings).argmax(dim=-1).tolist() == [0, 1, 2]


def test_only_vectors_as_long_as_embeddings_have_no_length_error(embeddings: torch.Tensor) -> None:
    nearest = NearestText(embeddings)
    distinct = embeddings - embeddings.mean(0)
    usual = functional.normalize(distinct, dim=-1) * distinct.norm(dim=-1).mean() + embeddings.mean(0)
    assert float(nearest.length_error(usual).max()) < 1e-6
    doubled, halved = (embeddings.mean(0) + factor * (usual - embeddings.mean(0)) for factor in (2.0, 0.5))
    torch.testing.assert_close(nearest.length_error(doubled), nearest.length_error(halved), rtol=1e-3, atol=1e-6)
