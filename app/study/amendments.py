"""What a researcher words or decides otherwise than the preset: parts of the study file, over those that it has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.study.definition import Checks, Codes, Plan, Study, Texts
from app.study.errors import DefinitionError
from audiolm.config import Config

PARTS: dict[str, type[Config]] = {"texts": Texts, "checks": Checks, "plan": Plan, "codes": Codes}
"""What may be changed of a study before it is kept; clips and trials may not."""

Amendments = Mapping[str, Mapping[str, Any]]
"""Part -> field -> value, as in the study file."""


def read_amendments(content: str | bytes) -> Amendments:
    """From JSON. Raises DefinitionError, ConfigError: not JSON, no such part or field, a value out of range."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"not JSON: {error}") from error
    return checked_amendments(found)


def checked_amendments(found: Amendments) -> Amendments:
    """The same, where every part and field is one that a study has. Raises DefinitionError, ConfigError."""
    if not isinstance(found, Mapping) or not set(found) <= set(PARTS):
        raise DefinitionError(f"expected an object with {', '.join(PARTS)}, or some of them")
    for name, fields in found.items():
        PARTS[name].from_dict(fields)
    return found


def amended(study: Study, amendments: Amendments) -> Study:
    """Raises DefinitionError, ConfigError."""
    parts = {
        name: PARTS[name].from_dict({**getattr(study, name).to_dict(), **fields})
        for name, fields in checked_amendments(amendments).items()
    }
    return replace(study, **parts)
