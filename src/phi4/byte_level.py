"""The letters that byte-level BPE writes bytes with, in vocabularies that are read and that are written."""


def byte_alphabet() -> list[str]:
    """Returns the letter that stands for each byte in a byte-level vocabulary.

    Printable Latin-1 stands for itself; the other bytes take the code points from 256 on, in order.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
