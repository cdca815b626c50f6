"""AudioLM Studio in the browser: `python app.py --help`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from app.service import Service
from app.settings import parse
from app.study.routes import study_route
from app.ui import build_ui, launch_options
from audiolm.errors import AudioLMError


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until interrupted. Returns 1, with a message, where it cannot start."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    settings = parse(arguments)
    try:
        service = Service(settings)
        service.start()
        studies = {"routes": [study_route(service.library)]}
        build_ui(service, settings).launch(**launch_options(settings), app_kwargs=studies)
    except (AudioLMError, OSError) as error:  # OSError: the port is taken, the address is not this machine's
        print(f"app.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
