"""The quantised kernels under the address and undefined-behaviour sanitisers."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent.parent / "src" / "phi4" / "kernels" / "cpp"
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]
LEVELS = {
    "plain": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": AVX512,
    "avx512_vnni": [*AVX512, "-mavx512vnni"],
}
CHECKED = ["-std=c++20", "-O1", "-g", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no compiler")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the levels are those of x86")
def test_nothing_beyond_the_buffers_is_touched(tmp_path: Path) -> None:
    def compile_(name: str, source: Path, flags: list[str]) -> str:
        built = str(tmp_path / f"{name}.o")
        command = ["c++", *CHECKED, *flags, "-Wno-psabi", f"-I{SOURCE}", "-c", str(source), "-o", built]
        subprocess.run(command, check=True)
        return built

    objects = [
        compile_(level, SOURCE / "quantised.cpp", [f"-DPHI4_LEVEL={level}", "-ffp-contract=off", *flags])
        for level, flags in LEVELS.items()
    ]
    objects.append(compile_("main", Path(__file__).with_name("sanitised.cpp"), []))
    subprocess.run(["c++", *CHECKED, *objects, "-o", str(tmp_path / "run")], check=True)
    result = subprocess.run([str(tmp_path / "run")], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout == "288 cases\n"
