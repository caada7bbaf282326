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


def test_whitened_what_many_texts_have_in_common_hides_less_of_what_they_do_not() -> None:
    torch.manual_seed(0)
    shared = 3.0 * torch.randn(2, 16)
    texts = torch.randn(40, 16) + shared.repeat_interleave(20, dim=0)
    alike, whitened = (NearestText(texts, whitened=whitened).cosines(texts) for whitened in (False, True))
    torch.testing.assert_close(whitened.diagonal(), torch.ones(40))
    assert whitened.fill_diagonal_(0.0).max() < alike.fill_diagonal_(0.0).max() - 0.1


def test_only_vectors_as_long_as_embeddings_have_no_length_error(embeddings: torch.Tensor) -> None:
    nearest = NearestText(embeddings)
    distinct = embeddings - embeddings.mean(0)
    usual = functional.normalize(distinct, dim=-1) * distinct.norm(dim=-1).mean() + embeddings.mean(0)
    assert float(nearest.length_error(usual).max()) < 1e-6
    doubled, halved = (embeddings.mean(0) + factor * (usual - embeddings.mean(0)) for factor in (2.0, 0.5))
    torch.testing.assert_close(nearest.length_error(doubled), nearest.length_error(halved), rtol=1e-3, atol=1e-6)
