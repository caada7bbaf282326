"""How errors reach a client: in OpenAI's shape, with the HTTP status of one table."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from phi4.errors import CapacityError, ClosedError, InputError, Phi4Error

ErrorType = Literal[
    "invalid_request_error", "authentication_error", "not_found_error", "rate_limit_error", "server_error"
]


class ErrorBody(msgspec.Struct, frozen=True):
    """What went wrong, as OpenAI's clients read it.

    Attributes:
        message: for people.
        type: kind of error.
        param: the field of the request that is at fault, where one is.
        code: for programs.
    """

    message: str
    type: ErrorType
    param: str | None = None
    code: str | None = None


class ErrorResponse(msgspec.Struct, frozen=True):
    """The body of every answer that is an error."""

    error: ErrorBody


class RefusedError(Exception):
    """A request that is refused for a reason that only a server has: its key, its path, its size or the load."""

    def __init__(self, status: int, body: ErrorBody, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(body.message)
        self.status = status
        self.body = body
        self.headers = headers


# The first row whose class fits counts. What is left is a fault of the model's files or of the program.
STATUS_OF_ERRORS: tuple[tuple[type[Exception], int, ErrorType, str | None], ...] = (
    (InputError, 400, "invalid_request_error", None),
    # The code that clients look for when they shorten a conversation and try again.
    (CapacityError, 400, "invalid_request_error", "context_length_exceeded"),
    # A server that stops closes its engine on those who are late.
    (ClosedError, 503, "server_error", "stopping"),
    (Phi4Error, 500, "server_error", None),
)


def describe_error(error: Exception) -> tuple[int, ErrorBody]:
    """The HTTP status of an error and what is said about it; the message of an unforeseen one stays in the log."""
    if isinstance(error, RefusedError):
        return error.status, error.body
    for kind, status, name, code in STATUS_OF_ERRORS:
        if isinstance(error, kind):
            return status, ErrorBody(str(error), name, code=code)
    return 500, ErrorBody("the server failed; its log says why", "server_error")


def invalid_field(message: str, param: str | None) -> RefusedError:
    """The error for a field that cannot be used, with its name."""
    return RefusedError(400, ErrorBody(message, "invalid_request_error", param))
