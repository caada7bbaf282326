"""MP3 files that do not say how long they are: their frames are counted, and one that says it is put in front."""

import struct

# Of layer III, by the index in a frame's header: MPEG 1, and MPEG 2 and 2.5.
KBITS = (
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
# By the version in a frame's header.
SAMPLE_RATES_HZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
LENGTH_TAGS = (b"Xing", b"Info", b"VBRI")


def with_length(content: bytes) -> bytes:
    """Puts a frame that announces the length before the first one, unless there is one, or this is no MP3 file.

    Without it libsndfile guesses the length from the first frame and the size, and reads no further.
    """
    start = _end_of_id3(content)
    header = content[start : start + 4]
    size = frame_bytes(header)
    if not size or any(tag in content[start : start + size] for tag in LENGTH_TAGS):
        return content
    num_frames, place = 0, start
    while place >= 0:
        own = content[place : place + 4]
        alike = own[1:2] == header[1:2] and (size := frame_bytes(own)) and not (own[2] ^ header[2]) & 0x0C
        num_frames += bool(alike)
        place = place + size if alike else content.find(header[:2], place + 1)
    return content[:start] + _length_frame(header, num_frames) + content[start:]


def _end_of_id3(content: bytes) -> int:
    """Where the tag with title and cover ends, whose length has 7 bits in each of 4 bytes."""
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    return 10 + sum(byte << 7 * place for place, byte in enumerate(reversed(content[6:10])))


def frame_bytes(header: bytes) -> int:
    """Length of the frame that begins so; 0 if none of layer III does."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return 0
    version, kbits, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or kbits in (0, 15) or rate == 3:
        return 0
    bytes_per_second = KBITS[version != 3][kbits] * 125
    return (1152 if version == 3 else 576) * bytes_per_second // SAMPLE_RATES_HZ[version][rate] + (header[2] >> 1 & 1)


def _length_frame(header: bytes, num_frames: int) -> bytes:
    """A silent frame of the same kind at a middling bit rate, with the tag where decoders look for it."""
    own = bytes([0xFF, header[1] | 1, 0x90 | header[2] & 0x0C, header[3]])
    is_mono, is_first_version = header[3] >> 6 == 3, header[1] >> 3 & 3 == 3
    side_bytes = (17 if is_mono else 32) if is_first_version else (9 if is_mono else 17)
    return (own + bytes(side_bytes) + b"Xing" + struct.pack(">II", 1, num_frames)).ljust(frame_bytes(own), b"\0")
