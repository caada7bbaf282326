"""Writes a GGUF file in a type such as Q4_K_M or F32 with llama.cpp's own tool: SOURCE, DESTINATION, and the type."""

import sys

import llama_cpp


def main() -> None:
    source, destination, kind = sys.argv[1:]
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{'ALL' if kind == 'F32' else 'MOSTLY'}_{kind}")
    if llama_cpp.llama_model_quantize(source.encode(), destination.encode(), settings):
        sys.exit(f"{source} was not quantised to {kind}")


if __name__ == "__main__":
    main()
