"""What stands between visitors and the service, put together: one a process."""

from __future__ import annotations

from typing import Any

from starlette.middleware import Middleware

from app.belongings import Belongings
from app.door import Door, House
from app.guard import Guard
from app.limits import Admission
from app.metrics import Metrics
from app.settings import Settings
from app.status import status_routes
from app.study.routes import study_route
from app.uploads import Uploads
from audiolm.audio.isolation import prepare
from audiolm.audio.limits import LIMITS


class Site:
    """The guard of all runs, the files of all visitors, and the door of the web server."""

    def __init__(self, settings: Settings) -> None:
        """Raises OSError where the folder of uploads cannot be used."""
        self.settings = settings
        prepare()
        self.belongings = Belongings(settings.cache_folder, settings.cache_age_s)
        self.guard = Guard(Admission(settings.work), Metrics())
        self.guard.metrics.gauge("audiolm_cache_bytes", self.belongings.num_bytes)

    def app_kwargs(self, service: Any, head: str) -> dict[str, Any]:
        """Arguments of the web application that Gradio makes: routes beside its own, and the door before all.

        `head` is the page's own.
        """
        settings = self.settings
        uploads = Uploads(
            LIMITS.max_file_bytes, settings.upload_bytes_per_hour, settings.max_cache_bytes, self.belongings.num_bytes
        )
        house = House(
            self.belongings,
            uploads,
            settings.prompts_folder,
            settings.num_proxies,
            settings.frame_ancestors,
            head.encode(),
            settings.local,
        )
        return {
            "routes": [*status_routes(self.guard, settings.metrics), study_route(service.library)],
            "middleware": [Middleware(Door, house=house)],
        }
