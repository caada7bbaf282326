"""Golden numbers of LongRoPE (facts sheet 1.4) and what the tables promise."""

import json
from importlib import resources

import pytest
import torch

from phi4.checkpoint.config_json import read_decoder
from phi4.config import DecoderConfig
from phi4.model.rope import RotaryTables, apply_rotary, longrope_scale


@pytest.fixture(scope="module")
def mini() -> DecoderConfig:
    preset = resources.files("phi4.checkpoint") / "presets" / "mini" / "config.json"
    return read_decoder(json.loads(preset.read_text()))


def test_the_scale_is_the_released_constant(mini: DecoderConfig) -> None:
    assert longrope_scale(mini) == pytest.approx(1.1902380714238083, abs=1e-15)


@pytest.mark.parametrize(
    ("index", "short", "long"),
    [
        (0, 1.0, 1.0),
        (1, 0.8254041852680184, 0.7380746917535459),
        (2, 0.6812920690579612, 0.5447542503555581),
        (24, 0.01, 0.000682979284476097),
        (31, 0.0026101572156825357, 8.149101516336359e-05),
        (47, 0.00012115276586285888, 2.5361684291994742e-06),
    ],
)
def test_inverse_frequencies_match_the_facts(mini: DecoderConfig, index: int, short: float, long: float) -> None:
    tables = RotaryTables.from_config(mini).inverse_frequencies
    assert tables.shape == (2, 48)
    assert tables[:, index].tolist() == pytest.approx([short, long], rel=1e-6)


def test_the_constant_scales_both_tables(mini: DecoderConfig) -> None:
    cos, sin = RotaryTables.from_config(mini).cos_sin(torch.tensor([0, 0]), ["short", "long"], [1, 1], torch.float32)
    torch.testing.assert_close(cos, torch.full_like(cos, 1.1902380714238083))
    assert not sin.any()


def test_each_segment_takes_its_own_table(mini: DecoderConfig) -> None:
    tables = RotaryTables.from_config(mini)
    positions = torch.tensor([5, 6, 5, 6])
    mixed = tables.cos_sin(positions, ["short", "long"], [2, 2], torch.float32)
    for half, table in ((slice(0, 2), "short"), (slice(2, 4), "long")):
        alone = tables.cos_sin(positions[half], [table], [2], torch.float32)
        assert torch.equal(mixed[0][half], alone[0])
        assert torch.equal(mixed[1][half], alone[1])


def test_only_the_leading_dimensions_rotate(mini: DecoderConfig) -> None:
    heads = torch.randn(3, 2, 128)
    cos, sin = RotaryTables.from_config(mini).cos_sin(torch.arange(3), ["short"], [3], torch.float32)
    rotated = apply_rotary(heads, cos, sin)
    assert torch.equal(rotated[..., 96:], heads[..., 96:])
    scale = longrope_scale(mini)
    torch.testing.assert_close(rotated[..., :96].norm(dim=-1), heads[..., :96].norm(dim=-1) * scale)


def test_the_long_table_starts_at_4097_tokens(mini: DecoderConfig) -> None:
    assert [mini.uses_long_rope(length) for length in (1, 4095, 4096, 4097)] == [False, False, False, True]
