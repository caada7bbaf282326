"""Makes clean synthetic speech sound as microphones hear people: in rooms, near and far, in noise, over telephones.

In the order in which a real voice meets them: its own speed, pitch and mouth, words half swallowed, a pause before and
after, the room, the noise in it, an overdriven microphone, a limited band, and the level of the recording.
"""

import io
from dataclasses import replace

import numpy as np
import soundfile
import soxr

from phi4.data.record import Record
from phi4.processing.audio_file import load_audio
from phi4.processing.messages import Message, Sound

SAMPLE_RATE_HZ = 16000
TELEPHONE_RATE_HZ = 8000

# How often each happens.
UNCHANGED_SHARE = 0.15
SPEED_SHARE = 0.8
FORMANT_SHARE = 0.5
TIMBRE_SHARE = 0.5
SWALLOWED_SHARE = 0.3
ROOM_SHARE = 0.5
NOISE_SHARE = 0.8
CLIPPED_SHARE = 0.1
TELEPHONE_SHARE = 0.2
MU_LAW_SHARE = 0.5
LOW_PASS_SHARE = 0.3
HIGH_PASS_SHARE = 0.5

# Between what each is drawn.
SPEEDS = (0.85, 1.15)
FORMANT_FACTORS = (0.85, 1.18)
TIMBRE_DB = (-9.0, 9.0)
MAX_SWALLOWED = 3
SWALLOWED_SECONDS = (0.02, 0.08)
MAX_PAUSE_SECONDS = 0.5
REVERBERATION_SECONDS = (0.1, 0.6)
NEAR_DIRECT_TO_REVERBERANT_DB = (5.0, 20.0)
FAR_DIRECT_TO_REVERBERANT_DB = (-5.0, 5.0)
SIGNAL_TO_NOISE_DB = (5.0, 35.0)
OVERDRIVE = (1.2, 3.0)
TELEPHONE_BAND_HZ = (300.0, 3400.0)
LOW_PASS_HZ = (3000.0, 7000.0)
HIGH_PASS_HZ = (30.0, 300.0)
FILTER_ORDERS = (2, 8)
PEAK_DB = (-25.0, 0.0)

NOISES = ("white", "pink", "brown", "hum", "babble")
MAINS_HZ = (50.0, 60.0)
HUM_HARMONICS = 12
HUM_OVER_HISS = 30.0
SPEECH_CORNER_HZ = 500.0
SYLLABLES_PER_SECOND = 5

# Frames in which formants are moved; what of a frame's cepstrum is its envelope, and holds no pitch below 500 Hz.
FRAME, HOP = 512, 128
ENVELOPE_QUEFRENCIES = 32
# A timbre is a gain at so many frequencies, from 0 to 8 kHz, and in between.
TIMBRE_KNOTS = 12

# Lengths that are multiples of this are fast to transform.
FFT_BLOCK = 4096


def augment(record: Record, generator: np.random.Generator) -> Record:
    """Returns the record with its sounds changed at random, or with a probability of 0.15 as it is.

    Args:
        record: any; texts and pictures stay.
        generator: alone determines what happens.
    """
    if generator.random() < UNCHANGED_SHARE:
        return record
    return replace(record, messages=tuple(_augment_message(message, generator) for message in record.messages))


def _augment_message(message: Message, generator: np.random.Generator) -> Message:
    if isinstance(message.content, str):
        return message
    parts = (_augment_sound(part, generator) if isinstance(part, Sound) else part for part in message.content)
    return replace(message, content=tuple(parts))


def _augment_sound(sound: Sound, generator: np.random.Generator) -> Sound:
    samples = load_audio(sound.source, SAMPLE_RATE_HZ)
    if not samples.any():
        return sound
    file = io.BytesIO()
    # Of the formats without loss, WAV is the fastest to write and to read.
    soundfile.write(file, distort(samples, generator), SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    return Sound(file.getvalue())


def distort(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Sends speech through a random speaker, room, microphone and line.

    Args:
        samples: clean speech at 16 kHz, not silent, [samples].
        generator: alone determines what happens.

    Returns:
        fp32 in [-1, 1] at 16 kHz, [samples]: 0.87 to 1.18 times as long, and up to a second of pauses more.
    """
    if generator.random() < SPEED_SHARE:
        # Declared at another rate, speech is faster and higher, or slower and lower.
        samples = soxr.resample(samples, SAMPLE_RATE_HZ * generator.uniform(*SPEEDS), SAMPLE_RATE_HZ)
    if generator.random() < FORMANT_SHARE:
        samples = move_formants(samples, generator.uniform(*FORMANT_FACTORS))
    if generator.random() < TIMBRE_SHARE:
        samples = change_timbre(samples, generator.uniform(*TIMBRE_DB, size=TIMBRE_KNOTS))
    if generator.random() < SWALLOWED_SHARE:
        samples = swallow(samples, generator)
    num_spoken = len(samples)
    pauses = generator.integers(0, round(MAX_PAUSE_SECONDS * SAMPLE_RATE_HZ), size=2)
    samples = np.pad(samples, pauses)
    if generator.random() < ROOM_SHARE:
        samples = convolve(samples, room_response(generator))
    if generator.random() < NOISE_SHARE:
        speech_power = np.square(samples).sum() / num_spoken
        noise_power = speech_power * 10 ** (-generator.uniform(*SIGNAL_TO_NOISE_DB) / 10)
        samples = samples + noise(len(samples), generator) * np.sqrt(noise_power)
    if generator.random() < CLIPPED_SHARE:
        samples = np.clip(_normalise(samples) * generator.uniform(*OVERDRIVE), -1.0, 1.0)
    samples = _telephone(samples, generator) if generator.random() < TELEPHONE_SHARE else _filter(samples, generator)
    return (_normalise(samples) * 10 ** (generator.uniform(*PEAK_DB) / 20)).astype(np.float32)


def _normalise(samples: np.ndarray) -> np.ndarray:
    return samples / np.abs(samples).max()


def move_formants(samples: np.ndarray, factor: float) -> np.ndarray:
    """Makes the mouth smaller (above 1) or larger: what it resounds at moves by a factor, and the pitch stays.

    Args:
        samples: at 16 kHz, [samples].
        factor: of the frequencies of formants.
    """
    window = np.hanning(FRAME + 1)[:-1].astype(np.float32)
    padded = np.pad(samples, (FRAME, FRAME + -len(samples) % HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP] * window
    spectra = np.fft.rfft(frames)
    cepstra = np.fft.irfft(np.log(np.abs(spectra) + 1e-5))
    cepstra[:, ENVELOPE_QUEFRENCIES : 1 - ENVELOPE_QUEFRENCIES] = 0.0
    envelopes = np.fft.rfft(cepstra).real
    places = np.minimum(np.arange(envelopes.shape[1]) / factor, envelopes.shape[1] - 1)
    below = np.minimum(places.astype(int), envelopes.shape[1] - 2)
    moved = envelopes[:, below] + (places - below) * (envelopes[:, below + 1] - envelopes[:, below])
    changed = np.fft.irfft(spectra * np.exp(moved - envelopes)) * window
    result = np.zeros(len(padded), dtype=np.float32)
    for place, frame in enumerate(changed):
        result[place * HOP : place * HOP + FRAME] += frame
    # The squares of windows that overlap by three quarters add up to this.
    return result[FRAME : FRAME + len(samples)] / np.float32(1.5)


def change_timbre(samples: np.ndarray, gains_db: np.ndarray) -> np.ndarray:
    """Makes some of the frequencies louder and others quieter, [samples].

    Args:
        samples: at 16 kHz, [samples].
        gains_db: at frequencies from 0 to 8 kHz at equal distances, [knots].
    """
    size = _fft_size(len(samples))
    frequencies = np.linspace(0.0, 1.0, size // 2 + 1)
    decibels = np.interp(frequencies, np.linspace(0.0, 1.0, len(gains_db)), gains_db)
    return np.fft.irfft(np.fft.rfft(samples, size) * 10 ** (decibels / 20), size)[: len(samples)]


def swallow(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Silences a few moments, [samples]."""
    samples = samples.copy()
    for _ in range(generator.integers(1, MAX_SWALLOWED, endpoint=True)):
        begin = generator.integers(len(samples))
        samples[begin : begin + round(generator.uniform(*SWALLOWED_SECONDS) * SAMPLE_RATE_HZ)] = 0.0
    return samples


def room_response(generator: np.random.Generator) -> np.ndarray:
    """The impulse response of a room: the direct sound, and an echo that fades by 60 dB, [samples]."""
    seconds = generator.uniform(*REVERBERATION_SECONDS)
    is_near = generator.random() < 0.5
    ratio_db = generator.uniform(*(NEAR_DIRECT_TO_REVERBERANT_DB if is_near else FAR_DIRECT_TO_REVERBERANT_DB))
    response = generator.standard_normal(round(seconds * SAMPLE_RATE_HZ), dtype=np.float32)
    response *= np.logspace(0.0, -3.0, len(response), dtype=np.float32)
    response *= np.sqrt(10 ** (-ratio_db / 10) / np.square(response).sum())
    response[0] = 1.0
    return response


def convolve(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """What is left of speech behind an impulse response, cut to its length, [samples]."""
    size = _fft_size(len(samples) + len(response))
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]


def noise(num_samples: int, generator: np.random.Generator) -> np.ndarray:
    """Noise of one kind, by chance, with a mean power of 1, [samples]."""
    kind = NOISES[generator.integers(len(NOISES))]
    size = _fft_size(num_samples)
    frequencies_hz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ).astype(np.float32)
    spectrum = generator.standard_normal(2 * len(frequencies_hz), dtype=np.float32).view(np.complex64)
    match kind:
        case "pink":
            spectrum *= np.maximum(frequencies_hz, MAINS_HZ[0]) ** -0.5
        case "brown":
            spectrum /= np.maximum(frequencies_hz, MAINS_HZ[0])
        case "babble":
            spectrum /= 1 + np.square(frequencies_hz / SPEECH_CORNER_HZ)
        case "hum":
            harmonics = np.arange(1, HUM_HARMONICS + 1)
            bins = np.round(harmonics * generator.choice(MAINS_HZ) * size / SAMPLE_RATE_HZ).astype(int)
            spectrum[bins] *= HUM_OVER_HISS * np.sqrt(len(spectrum)) / harmonics
    samples = np.fft.irfft(spectrum, size)[:num_samples]
    if kind == "babble":
        samples *= _syllables(num_samples, generator)
    return samples / np.sqrt(np.square(samples).mean())


def _syllables(num_samples: int, generator: np.random.Generator) -> np.ndarray:
    """The loudness of somebody talking in the background, [samples]."""
    knots = np.arange(0, num_samples + SAMPLE_RATE_HZ, SAMPLE_RATE_HZ // (2 * SYLLABLES_PER_SECOND))
    return np.interp(np.arange(num_samples), knots, generator.uniform(0.1, 1.0, len(knots))).astype(np.float32)


def _filter(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A microphone's own band: perhaps dull, perhaps thin, [samples]."""
    size = _fft_size(len(samples))
    gain = np.ones(size // 2 + 1, dtype=np.float32)
    if generator.random() < HIGH_PASS_SHARE:
        gain *= high_pass(size, SAMPLE_RATE_HZ, generator.uniform(*HIGH_PASS_HZ), _order(generator))
    if generator.random() < LOW_PASS_SHARE:
        gain *= low_pass(size, SAMPLE_RATE_HZ, generator.uniform(*LOW_PASS_HZ), _order(generator))
    return np.fft.irfft(np.fft.rfft(samples, size) * gain, size)[: len(samples)]


def _telephone(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A telephone line: 300 to 3400 Hz at 8 kHz, often in the eight bits of the mu-law, [samples]."""
    size = _fft_size(len(samples))
    narrow_size = size * TELEPHONE_RATE_HZ // SAMPLE_RATE_HZ
    spectrum = np.fft.rfft(samples, size)[: narrow_size // 2 + 1]
    low_hz, high_hz = TELEPHONE_BAND_HZ
    spectrum *= high_pass(narrow_size, TELEPHONE_RATE_HZ, low_hz, _order(generator))
    spectrum *= low_pass(narrow_size, TELEPHONE_RATE_HZ, high_hz, _order(generator))
    narrow = _normalise(np.fft.irfft(spectrum, narrow_size))
    if generator.random() < MU_LAW_SHARE:
        narrow = mu_law(narrow * generator.uniform(0.1, 1.0))
    return np.fft.irfft(np.fft.rfft(narrow), size)[: len(samples)]


def mu_law(samples: np.ndarray) -> np.ndarray:
    """Rounds samples in [-1, 1] to the 8-bit mu-law, [samples] (ITU-T G.711, its continuous form)."""
    compressed = np.sign(samples) * np.log1p(255 * np.abs(samples)) / np.log(256)
    rounded = np.round(compressed * 127) / 127
    return np.sign(rounded) * np.expm1(np.abs(rounded) * np.log(256)) / 255


def _order(generator: np.random.Generator) -> int:
    return int(generator.integers(*FILTER_ORDERS, endpoint=True))


def low_pass(size: int, rate_hz: int, corner_hz: float, order: int) -> np.ndarray:
    """A Butterworth filter's gain at each frequency of a real transform of this size, [size // 2 + 1]."""
    frequencies_hz = np.fft.rfftfreq(size, 1 / rate_hz).astype(np.float32)
    return (1 + (frequencies_hz / np.float32(corner_hz)) ** (2 * order)) ** np.float32(-0.5)


def high_pass(size: int, rate_hz: int, corner_hz: float, order: int) -> np.ndarray:
    """A Butterworth filter's gain at each frequency of a real transform of this size, [size // 2 + 1]."""
    frequencies_hz = np.fft.rfftfreq(size, 1 / rate_hz).astype(np.float32)
    # Two decades below the corner nothing is left anyway; lower frequencies would only overflow.
    ratio = np.float32(corner_hz) / np.maximum(frequencies_hz, corner_hz / 100)
    return (1 + ratio ** (2 * order)) ** np.float32(-0.5)


def _fft_size(num_samples: int) -> int:
    return -(-num_samples // FFT_BLOCK) * FFT_BLOCK
