"""How much may be uploaded: of one visitor in an hour, and of all together as long as it lies on the disk."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.limits import Allowance, spoken

OVERHEAD_BYTES = 2**20  # of a request around its file
MEASURE_EVERY_S = 10.0


class Uploads:
    """Counts what comes in. An amount of 0 is "no limit"."""

    def __init__(
        self, max_file_bytes: int, per_hour_bytes: int, max_cache_bytes: int, measure: Callable[[], int]
    ) -> None:
        """`measure` says how many bytes lie in the cache."""
        self._max_file_bytes, self._max_cache_bytes = max_file_bytes, max_cache_bytes
        self._own = Allowance(per_hour_bytes, 3600.0)
        self._logins = Allowance(10, 600.0)
        self._measure, self._measured_at, self._in_cache = measure, -MEASURE_EVERY_S, 0

    def refusal(self, address: str, num_bytes: int) -> str:
        """Why an upload of so many bytes, or of unknown length (0), is not taken; or ""."""
        if told := self.too_large(num_bytes):
            return told
        if wait_s := self._own.wait_s(address, max(1, num_bytes)):
            limit = f"at most {self._own.amount / 2**20:.0f} MiB are taken from you in an hour"
            return limit if wait_s > self._own.window_s else f"{limit}. Please try again in {spoken(wait_s)}"
        if time.monotonic() - self._measured_at > MEASURE_EVERY_S:
            self._in_cache, self._measured_at = self._measure(), time.monotonic()
        if self._max_cache_bytes and self._in_cache + num_bytes > self._max_cache_bytes:
            return "the server's room for recordings is full. Please try again in about 20 minutes"
        return ""

    def too_large(self, num_bytes: int) -> str:
        """Why so many bytes are too many for one request, or ""."""
        if num_bytes > self._max_file_bytes + OVERHEAD_BYTES:
            return f"an upload of {num_bytes / 2**20:.0f} MiB; at most {self._max_file_bytes / 2**20:.0f} MiB are taken"
        return ""

    def take(self, address: str, num_bytes: int) -> str:
        """Counts a piece that came; why no more of it is taken, or ""."""
        self._own.take(address, num_bytes)
        self._in_cache += num_bytes
        return self.refusal(address, 0)

    def may_try_to_log_in(self, address: str) -> bool:
        """A few times in ten minutes."""
        if self._logins.wait_s(address):
            return False
        self._logins.take(address)
        return True
