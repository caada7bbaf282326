"""Quantises a directory to Q4K and writes it as mistral.rs stores it, a UQFF file, for peers.py: SOURCE DESTINATION."""

import sys
from pathlib import Path

from mistralrs import Architecture, Runner, Which


def main() -> None:
    source, destination = sys.argv[1:]
    Path(destination).mkdir(parents=True, exist_ok=True)
    path = Path(destination) / "q4k.uqff"  # a number is put behind the name
    Runner(Which.Plain(source, arch=Architecture.Phi3, write_uqff=str(path)), in_situ_quant="Q4K")


if __name__ == "__main__":
    main()
