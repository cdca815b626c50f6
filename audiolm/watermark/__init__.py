"""The mark in what was generated, and the search for it: Perth by Resemble AI."""

from audiolm.watermark.marking import NAME, MarkResult, check, mark
from audiolm.watermark.network import require

__all__ = ["NAME", "MarkResult", "check", "mark", "require"]
