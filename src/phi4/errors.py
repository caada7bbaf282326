"""Every error that phi4 raises on purpose.

    Phi4Error
    ├── ConfigError       a configuration file is missing a key, contradicts itself or asks for what does not exist
    ├── CheckpointError   weights are missing, unknown, misshapen, truncated, pickled or made for another base
    ├── InputError        a message, picture, sound or option from the user cannot be used
    ├── DataError         a record, shard or package is missing, broken or not what it was when training began
    ├── TrainingError     training went wrong: a loss that is no number, a frozen weight that changed
    ├── CapacityError     the request is valid but larger than the model or the machine allows
    └── ClosedError       the engine was closed: it takes no requests any more, and ends those that it has

A message says what is wrong, with the values, and what to do about it.
"""


class Phi4Error(Exception):
    """Base of all errors that phi4 raises on purpose."""


class ConfigError(Phi4Error):
    """A configuration is incomplete, contradictory or unsupported."""


class CheckpointError(Phi4Error):
    """A file of weights cannot be used as it is."""


class InputError(Phi4Error):
    """Something that the user supplied cannot be used."""


class DataError(Phi4Error):
    """Training data cannot be fetched, read or trusted."""


class TrainingError(Phi4Error):
    """Training cannot go on, and nothing of it may be saved as a result."""


class CapacityError(Phi4Error):
    """A valid request does not fit the model's context or the machine."""


class ClosedError(Phi4Error):
    """A request came too late: the engine was closed before it was answered."""
