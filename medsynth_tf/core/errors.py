"""Errors with one-line messages that say what was wrong, where, and what is allowed.

Every error the library raises on purpose derives from `MedSynthError`; the command line prints its message without a
traceback and exits with `exit_code`. Most also derive from the built-in that a Python user would catch.
"""


class MedSynthError(Exception):
    """Base of all deliberate errors. `exit_code` is what the `medsynth` command exits with."""

    exit_code = 1

    def __str__(self) -> str:  # KeyError would print the message in quotes
        return str(self.args[0]) if self.args else self.__class__.__name__


class ConfigError(MedSynthError, ValueError):
    """A configuration field is unknown, of the wrong type or out of range."""

    exit_code = 2


class UnknownNameError(MedSynthError, KeyError):
    """A method, source, layout or phantom of that name does not exist; the message names the nearest that does."""

    exit_code = 2


class DataError(MedSynthError, ValueError):
    """A file or a record cannot be used; the message names the file and the reason."""

    exit_code = 3


class TrainingError(MedSynthError, RuntimeError):
    """Training cannot start or go on."""

    exit_code = 4


class NonFiniteLossError(TrainingError):
    """A loss became NaN or infinite; the message names the step and the losses."""


class ExportError(MedSynthError, RuntimeError):
    """A model cannot be exported, or an export cannot be loaded."""

    exit_code = 5


class ServingError(MedSynthError, RuntimeError):
    """The model server refused or failed a request; `code` is the gRPC status name."""

    exit_code = 6

    def __init__(self, message: str, code: str = "UNKNOWN"):
        super().__init__(message)
        self.code = code
