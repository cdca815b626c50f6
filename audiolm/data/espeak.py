"""espeak-ng, which speaks English by rules: a program that may be installed beside this one."""

from __future__ import annotations

import shutil
import subprocess

from audiolm.errors import EvaluationError

_PROGRAM, _TIMEOUT_S = "espeak-ng", 20.0


def has_espeak() -> bool:
    return shutil.which(_PROGRAM) is not None


def run_espeak(*arguments: str) -> str:
    """What it prints. Raises EvaluationError, which names the arguments, where it is not installed or fails."""
    program = shutil.which(_PROGRAM)
    if program is None:
        raise EvaluationError(f"{_PROGRAM} is not installed")
    options = {"capture_output": True, "timeout": _TIMEOUT_S, "encoding": "utf-8", "errors": "replace"}
    try:
        return subprocess.run([program, *arguments], check=True, **options).stdout
    except subprocess.CalledProcessError as error:
        raise EvaluationError(f"{_PROGRAM} failed: {error} {error.stderr.strip()}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise EvaluationError(f"{_PROGRAM} failed: {error}") from error
