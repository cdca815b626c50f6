"""What can go wrong in a study, told apart as a caller needs to (HTTP status in brackets)."""

from __future__ import annotations

from audiolm.errors import AudioLMError


class StudyError(AudioLMError):
    """Root of the errors of a study [400]."""


class DefinitionError(StudyError, ValueError):
    """A study file is not one, or contradicts itself [400]."""


class PreflightError(StudyError):
    """The clips are not fit to be heard: the message lists every problem [400]."""


class AnswerError(StudyError, ValueError):
    """An answer that its trial does not allow, or clips that were not played as required [422]."""


class NoSessionError(StudyError):
    """A token or participant without a session, a handle the session is not entitled to [404]."""


class UnknownStudyError(StudyError):
    """No study of that id here [404]."""


class ConflictError(StudyError):
    """The trial has another answer already, or the key belongs to another answer [409]; ask for the next trial."""


class LapsedError(StudyError):
    """The session was idle for too long and its place has been filled [410]; code and redirect as StudyFullError."""

    def __init__(self, message: str, code: str = "", redirect: str = "") -> None:
        super().__init__(message)
        self.code, self.redirect = code, redirect


class StudyFullError(StudyError):
    """Every place is taken, or the study is closed [403]; `code` and `redirect` are what the platform is told."""

    def __init__(self, message: str, code: str = "", redirect: str = "") -> None:
        super().__init__(message)
        self.code, self.redirect = code, redirect


class IncompleteError(StudyError):
    """Asked for a completion code before every answer is in [409]."""


class StoreError(StudyError):
    """The database is missing, damaged or of another version [500]."""
