"""What wrk says."""

from __future__ import annotations

import pytest

from benchmarks.web import told

SAID = """
Running 1s test @ http://127.0.0.1:7004/
  Latency Distribution
     50%  512.00us
     75%    1.20ms
     90%    2.00ms
     99%    4.51ms
  20482 requests in 1.10s, 3.01MB read
Requests/sec:  18620.00
"""


def test_what_wrk_says() -> None:
    assert told(SAID) == {"requests": 20482.0, "seconds": 1.1, "median": 512.0, "p99": 4510.0}


@pytest.mark.parametrize("line", ["  Socket errors: connect 0, read 3, write 0, timeout 0", "  Non-2xx responses: 4"])
def test_requests_that_fail_are_not_counted(line: str) -> None:
    with pytest.raises(RuntimeError, match="requests failed"):
        told(SAID + line)


def test_what_is_not_wrk() -> None:
    with pytest.raises(RuntimeError, match="something else"):
        told("no such file")
