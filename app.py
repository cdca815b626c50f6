"""AudioLM Studio in the browser: `python app.py --help`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from app import logs
from app.lifetime import serve_until_stopped
from app.service import Service
from app.settings import parse
from app.site import Site
from app.ui import build_ui, launch_options
from audiolm.errors import AudioLMError


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop. Returns 1, with a message, where it cannot start."""
    settings = parse(arguments)
    logs.set_up(settings.log_json, settings.cache_folder)
    try:
        service = Service(settings)
        service.start()
        site = Site(settings, service)
        page = build_ui(service, settings, site)
        options = launch_options(settings)
        page.launch(**options, app_kwargs=site.app_kwargs(options["head"]), prevent_thread_lock=True)
    except (AudioLMError, OSError) as error:  # OSError: the port is taken, the address is not this machine's
        print(f"app.py: {error}", file=sys.stderr)
        return 1
    site.belongings.sweep_forever(settings.cache_sweep_s)
    serve_until_stopped(site.guard, settings.grace_s, page.close)
    service.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
