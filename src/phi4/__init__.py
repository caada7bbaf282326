"""Phi-4-Mini and Phi-4-Multimodal: run, serve, adapt and extend them."""

__version__ = "0.1.0"
