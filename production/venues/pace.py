"Not too fast, and not into a wall: a limiter that keeps a reserve for exits, and a circuit breaker."
import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from trading_lib.core.errors import Unreachable

PATIENCE_S = 30.   # a longer pause is said instead of waited for


class Shut(Unreachable):
    "Not asked at all: the venue is away, or wants to be left alone for long. Asking again at once is pointless."


class Limiter:
    "A bucket of request weight, on a monotonic clock, so that a clock set back stalls nothing. What is urgent may empty it, the rest leaves a reserve."

    def __init__(self, per_minute: float, reserve: float = .2, clock: Callable[[], float] = time.monotonic):
        # a full bucket and its refill together stay within the minute
        self.room, self.rate, self.reserve, self.clock = per_minute / 7, per_minute / 70, reserve, clock
        self.level, self.filled, self.resume = self.room, clock(), 0.
        self._line = asyncio.Lock()   # the patient queue up; the urgent do not

    def pause(self, seconds: float): self.resume = max(self.resume, self.clock() + seconds)

    @property
    def paused_s(self) -> float: return max(0., self.resume - self.clock())

    async def take(self, weight: float, urgent: bool = False):
        if urgent: return await self._take(min(weight, self.room), 0)
        kept = self.room * self.reserve
        async with self._line: await self._take(min(weight, self.room - kept), kept)

    async def _take(self, weight: float, kept: float):
        while True:
            now = self.clock()
            self.level, self.filled = min(self.room, self.level + (now - self.filled) * self.rate), now
            wait = max(self.resume - now, (weight + kept - self.level) / self.rate)
            if wait <= 1e-9: break
            if self.paused_s > PATIENCE_S: raise Shut(f'told to be quiet for another {self.paused_s:.0f} s')
            await asyncio.sleep(wait)
        self.level -= weight


@dataclass
class Breaker:
    "Opens after so many failures in a row; then one probe at a time, further and further apart, until one is answered."
    venue: str
    after: int = 5
    first_s: float = 1.
    longest_s: float = 60.
    clock: Callable[[], float] = time.monotonic
    failures: int = 0
    since: datetime | None = None
    probe_at: float = 0.
    wait_s: float = 0.

    @property
    def state(self) -> str: return 'closed' if not self.wait_s else 'open' if self.clock() < self.probe_at else 'half-open'

    def check(self):
        "Raises `Shut` while it is open; lets one probe through when its time has come."
        if not self.wait_s: return
        left = self.probe_at - self.clock()
        if left > 0: raise Shut(f'{self.venue} has not answered since {self.since:%Y-%m-%dT%H:%M:%SZ}; asking it again in {left:.0f} s')
        self.probe_at = self.clock() + self.wait_s   # until the probe is answered

    def good(self): self.failures, self.since, self.wait_s = 0, None, 0.

    def bad(self):
        self.failures += 1
        self.since = self.since or datetime.now(UTC)
        if self.failures < self.after: return
        self.wait_s = min(self.wait_s * 2, self.longest_s) if self.wait_s else self.first_s
        self.probe_at = self.clock() + self.wait_s
