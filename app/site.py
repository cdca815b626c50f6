"""What stands between visitors and the service, put together: one a process."""

from __future__ import annotations

from typing import Any

from starlette.middleware import Middleware

from app.belongings import Belongings
from app.door import Door, House
from app.guard import Guard
from app.limits import Admission, Allowance
from app.metrics import Metrics
from app.service import Service
from app.settings import Settings
from app.status import status_routes
from app.study.routes import study_route
from app.uploads import Uploads
from audiolm.audio.limits import LIMITS

ENGINE_GAUGES = {
    "audiolm_engine_restarts_total": "restarts",
    "audiolm_engine_runs": "running",
    "audiolm_engine_waiting": "waiting",
    "audiolm_engine_resident_bytes": "memory_bytes",
    "audiolm_device_bytes": "device_memory_bytes",
}


class Site:
    """The guard of all runs, the files of all visitors, and the door of the web server."""

    def __init__(self, settings: Settings, service: Service) -> None:
        """Raises OSError where the folder of uploads cannot be used."""
        self.settings, self._service = settings, service
        self.belongings = Belongings(settings.cache_folder, settings.cache_age_s)
        self.guard = Guard(Admission(settings.work), Metrics())
        self.run_events: set[int | str] = set()
        """Which of the page's events begin a run; the page says it once it is built."""
        self.guard.metrics.gauge("audiolm_cache_bytes", self.belongings.num_bytes)
        for name, field in ENGINE_GAUGES.items():
            self.guard.metrics.gauge(name, lambda field=field: getattr(service.status(), field))

    def app_kwargs(self, head: str) -> dict[str, Any]:
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
            Allowance(settings.posts_per_address, settings.work.window_s),
            self.guard.admission,
            self.run_events,
        )
        return {
            "routes": [
                *status_routes(self.guard, lambda: self._service.status().state, settings.metrics),
                study_route(self._service.library),
            ],
            "middleware": [Middleware(Door, house=house)],
        }
