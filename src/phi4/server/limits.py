"""What the server takes on: sizes, lengths, times and how many may wait."""

from dataclasses import dataclass

from phi4.errors import ConfigError


@dataclass(frozen=True)
class ServerLimits:
    """Bounds of one server.

    Attributes:
        max_body_bytes: largest body of a request.
        max_bodies_bytes: bodies of requests that are in memory at once; more wait for their turn, then get status 429.
        max_image_pixels: largest picture, width times height.
        max_audio_s: longest sound.
        max_context: most tokens of prompt and answer; None takes the model's context.
        max_waiting: requests that may be waiting for their first token; more get status 429.
        allow_remote_media: whether pictures and sounds are fetched from addresses in requests.
        max_remote_bytes: largest medium that is fetched.
        remote_timeout_s: longest time for fetching one.
        drain_s: how long running answers may go on when the server is asked to stop.
    """

    max_body_bytes: int = 32 * 2**20
    max_bodies_bytes: int = 256 * 2**20
    max_image_pixels: float = 50e6
    max_audio_s: float = 1800.0
    max_context: int | None = None
    max_waiting: int = 128
    allow_remote_media: bool = False
    max_remote_bytes: int = 16 * 2**20
    remote_timeout_s: float = 10.0
    drain_s: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            # "Not above" instead of "at most": a number that is none is neither.
            if value is not None and not isinstance(value, bool) and not value > 0 and name != "drain_s":
                raise ConfigError(f"{name} must be above 0, not {value}")
        if not self.drain_s >= 0:
            raise ConfigError(f"drain_s must be at least 0, not {self.drain_s}")
        if self.max_bodies_bytes < self.max_body_bytes:
            raise ConfigError(
                f"one request may have {self.max_body_bytes:,} bytes, but all together only {self.max_bodies_bytes:,}; "
                "lower max_body_bytes (--max-body-mb) or raise max_bodies_bytes (--max-bodies-mb)"
            )
