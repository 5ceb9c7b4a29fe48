"""Whether what is checked again and again is healthy. No clock: how long it has run is told.

Until it has been healthy once it is asked often (start_interval), and has as long as the Compose specification would
give it: its start period, and then as many failures as it may have. Later, so many failures in a row count.
"""

from __future__ import annotations

from attrs import define

from appswitch.compose.project import Check


@define
class Patience:
    """With one program, from its start on."""

    check: Check
    failures: int = 0
    was_healthy: bool = False

    def judge(self, succeeded: bool, age: float) -> bool | None:
        """Healthy or not, after a check that ended `age` seconds after the start; None: that stays as it is."""
        if succeeded:
            self.failures, self.was_healthy = 0, True
            return True
        self.failures += 1
        if self.was_healthy:
            return False if self.failures >= self.check.retries else None
        return False if age >= self.check.start_period + self.check.retries * self.check.interval else None

    @property
    def pause(self) -> float:
        """Seconds until the next check."""
        return self.check.interval if self.was_healthy else self.check.start_interval
