"""Quantises a GGUF file with llama.cpp's own tool, for peers.py: SOURCE, DESTINATION, and a type such as Q4_K_M."""

import sys

import llama_cpp


def main() -> None:
    source, destination, kind = sys.argv[1:]
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama_cpp.llama_model_quantize(source.encode(), destination.encode(), settings):
        sys.exit(f"{source} was not quantised to {kind}")


if __name__ == "__main__":
    main()
