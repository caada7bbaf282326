"""Long sounds in pieces that a model was trained to transcribe, cut where it is quiet."""

import numpy as np

# What sounds are resampled to before they are cut: the released models' own rate.
SAMPLE_RATE_HZ = 16_000
# Speech recognition was trained on clips of up to 40 s (facts sheet 5.4); a piece ends between 20 and 30 s.
MIN_PIECE_S = 20
MAX_PIECE_S = 30
# How much of a sound is compared with its neighbourhood to find out where it is quiet.
WINDOW_S = 0.1


def cut_where_quiet(samples: np.ndarray, sample_rate_hz: int) -> list[tuple[int, int]]:
    """Cuts a sound into pieces.

    Args:
        samples: fp32, [samples].
        sample_rate_hz: of the samples.

    Returns:
        First sample and end of each piece. A sound of at most 30 s is one piece.
    """
    pieces = []
    start = 0
    while len(samples) - start > MAX_PIECE_S * sample_rate_hz:
        earliest = start + MIN_PIECE_S * sample_rate_hz
        end = earliest + _quietest(samples[earliest : start + MAX_PIECE_S * sample_rate_hz], sample_rate_hz)
        pieces.append((start, end))
        start = end
    return [*pieces, (start, len(samples))]


def _quietest(samples: np.ndarray, sample_rate_hz: int) -> int:
    """The middle of the quietest window."""
    window = int(WINDOW_S * sample_rate_hz)
    energy = np.add.reduceat(np.square(samples, dtype=np.float64), np.arange(0, len(samples) - window + 1, window))
    return int(energy.argmin()) * window + window // 2
