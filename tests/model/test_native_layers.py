"""All layers in one native call: the same rows, and the same cache, as from one part of a layer after the other."""

import pytest
import torch

from phi4.checkpoint.weights import LoadedModel
from phi4.engine.engine import Engine
from phi4.kernels.instructions import NATIVE
from phi4.model.decoder import Phi4Mini
from phi4.model.paged_cache import PagedCache
from phi4.model.step import Segment, Step

pytestmark = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")

# New tokens of each conversation, and its adapter.
CONVERSATIONS = [(5, None), (7, "vision"), (1, "speech"), (3, "vision")]
BLOCK_TOKENS = 8
TOKENS = sum(tokens for tokens, _ in CONVERSATIONS)


def prepare(model: Phi4Mini, dtype: torch.dtype, output_rows: list[int] | None) -> tuple[Step, PagedCache]:
    """A step of all conversations, each in a block of its own."""
    cache = PagedCache(model.decoder_config, len(CONVERSATIONS), BLOCK_TOKENS, dtype, model.device)
    storages = [
        *cache.layers.keys,
        *cache.layers.values,
        *(part for parts in cache.layers.scales or () for part in parts),
    ]
    for storage in storages:
        storage.zero_()
    segments = [
        Segment(tokens, adapter=adapter, cache=cache.row([block]))
        for block, (tokens, adapter) in enumerate(CONVERSATIONS)
    ]
    return model.step(segments, output_rows), cache


@pytest.mark.parametrize("cache_dtype", [torch.float32, torch.int8])
@pytest.mark.parametrize("output_rows", [None, [4, 11, 12, 15], list(range(TOKENS))])
@torch.inference_mode()
def test_one_call_gives_the_bits_of_the_layers_one_by_one(
    tiny: LoadedModel, cache_dtype: torch.dtype, output_rows: list[int] | None
) -> None:
    model = tiny.model.language
    assert isinstance(model, Phi4Mini)
    native = model.native_layers()
    assert native is not None
    torch.manual_seed(0)
    embeddings = torch.randn(TOKENS, model.decoder_config.hidden_size)
    (one_by_one, own), (together, other) = (prepare(model, cache_dtype, output_rows) for _ in range(2))
    assert torch.equal(model(embeddings, one_by_one), model(embeddings, together, native))
    assert all(map(torch.equal, [*own.layers.keys, *own.layers.values], [*other.layers.keys, *other.layers.values]))


def test_a_model_in_a_type_without_kernels_has_none(tiny: LoadedModel) -> None:
    model = Phi4Mini(tiny.config.decoder).to(torch.float16)
    assert model.native_layers() is None


def test_an_engine_runs_them(tiny: LoadedModel) -> None:
    engine = Engine(tiny.model, (), cache_tokens=64)
    assert engine._runner.native_layers is not None
    engine.close()
