import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from phi4.bench.work import decode_work, prefill_work, tensor_bytes, weight_bytes
from phi4.checkpoint.weights import LoadedModel
from phi4.model.decoder import Phi4Mini
from phi4.model.step import Segment


def count_operations(model: Phi4Mini, tokens: int) -> int:
    """What torch counts in a prefill that asks for the last row; kernels without gradients are not counted."""
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        step = model.step([Segment(tokens)], output_rows=[tokens - 1])
        model.logits(model(model.embed(torch.arange(tokens)), step))
    return counter.get_total_flops()


def test_operations_are_those_that_torch_counts(tiny: LoadedModel) -> None:
    model = tiny.model.language
    assert prefill_work(model, 1).operations == decode_work(model, 1, 1).operations == count_operations(model, 1)
    # Of longer prompts the stock way computes scores above the diagonal, too.
    least = prefill_work(model, 8).operations
    assert least < count_operations(model, 8) < 1.1 * least


def test_rows_share_the_weights_but_not_their_histories(tiny: LoadedModel) -> None:
    one, many = decode_work(tiny.model, 1, 100), decode_work(tiny.model, 16, 100)
    assert many.operations == 16 * one.operations
    assert many.read_bytes - weight_bytes(tiny.model) == 16 * (one.read_bytes - weight_bytes(tiny.model))


def test_a_pass_over_text_reads_no_encoder_no_adapter_and_one_table_of_tokens(tiny: LoadedModel) -> None:
    config = tiny.model.decoder_config
    assert weight_bytes(tiny.model) == tensor_bytes(Phi4Mini(config)) < tensor_bytes(tiny.model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_stored_type(tiny: LoadedModel, dtype: torch.dtype) -> None:
    model = Phi4Mini(tiny.model.decoder_config).to(dtype)
    assert tensor_bytes(model) == dtype.itemsize * sum(parameter.numel() for parameter in model.parameters())
