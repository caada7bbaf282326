"""Every native kernel under the address and undefined-behaviour sanitisers: nothing beyond the buffers is touched."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent / "src" / "phi4" / "kernels" / "cpp"
PROGRAMS = Path(__file__).parent / "sanitised"
CHECKED = ["-std=c++20", "-O1", "-g1", "-pthread", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# As in CMakeLists.txt.
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
FLAGS = {
    "plain": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": AVX512,
    "avx512_bf16": [*AVX512, "-mavx512bf16"],
    "avx512_vnni": [*AVX512, "-mavx512vnni"],
    # Tiles are emulated: the machine need not have them.
    "amx": [
        *AVX512,
        "-mavx512vnni",
        "-mavx512bf16",
        "-D__AMX_INT8__",
        "-D__AMX_BF16__",
        f"-include{PROGRAMS / 'emulated_tiles.h'}",
    ],
}
UNFUSED = ("byte_attention", "cached_bytes", "quantised")
ALWAYS = ["plain", "avx2", "avx512"]
KERNELS = {
    "attention": {
        "attention": ALWAYS,
        "cached_bytes": ALWAYS,
        "half_attention": ["avx512_bf16", "amx"],
        "byte_attention": ["avx512_vnni", "amx"],
    },
    "decoder_layer": {
        "attention": ALWAYS,
        "cached_bytes": ALWAYS,
        "elementwise": ALWAYS,
        "linear": ALWAYS,
        "quantised": [*ALWAYS, "avx512_vnni", "amx"],
    },
    "elementwise": {"elementwise": ALWAYS},
    "encoder": {
        "encoder_rows": ["avx512_bf16"],
        "full_attention": ["avx512_bf16"],
        "projection": ["avx512_bf16", "amx"],
    },
    "linear": {"linear": [*ALWAYS, "avx512_bf16"], "tile_linear": ["amx"]},
    "quantised": {"quantised": [*ALWAYS, "avx512_vnni", "amx"]},
    "scores": {"scores": ALWAYS},
    "tile_trial": {
        "tile_trial": ["plain"],
        "linear": ["avx512_bf16"],
        "quantised": ["avx512_vnni", "amx"],
        "tile_linear": ["amx"],
    },
}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the levels are those of x86")
@pytest.mark.parametrize("program", KERNELS)
def test_nothing_beyond_the_buffers_is_touched(program: str, tmp_path: Path) -> None:
    def compile_(name: str, source: Path, flags: list[str]) -> str:
        built = str(tmp_path / f"{name}.o")
        command = ["c++", *CHECKED, *flags, "-Wno-psabi", f"-I{SOURCE}", "-c", str(source), "-o", built]
        subprocess.run(command, check=True)
        return built

    objects = [compile_("main", PROGRAMS / f"{program}.cpp", [])]
    objects += [compile_(name, SOURCE / f"{name}.cpp", []) for name in ("allocate", "adapted", "decoder_layer", "team")]
    for kernel, levels in KERNELS[program].items():
        for level in levels:
            unfused = ["-ffp-contract=off"] if kernel in UNFUSED else []
            flags = [f"-DPHI4_LEVEL={level}", *unfused, *FLAGS[level]]
            objects.append(compile_(f"{kernel}-{level}", SOURCE / f"{kernel}.cpp", flags))
    subprocess.run(["c++", *CHECKED, *objects, "-o", str(tmp_path / "run")], check=True)
    result = subprocess.run([str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    if result.stdout == "0 cases\n":
        pytest.skip("this processor lacks the instructions")
