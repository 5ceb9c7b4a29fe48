"""Blue/green: a web service changes its version under load, and no request fails.

    python -m examples.blue_green

README.md says what there is to see.
"""

from __future__ import annotations

import re
import sys

from examples.stage import Place, Program, Stage, expect, play, tell


def start(stage: Stage, here: Place, version: str) -> Program:
    """A version of the shop, serving."""
    before = len(here.rows("services"))
    nginx = stage.nginx(version, f"this is {version}")
    program = here.start(f"appswitch spawn --name shop --tag version={version} -- {nginx}")
    here.wait_for("shop:80", instances=before + 1)
    return program


def scene(stage: Stage) -> None:
    """The example."""
    here = stage.here()
    here.serve()
    tell("1. The shop runs as version `blue`.")
    old = start(stage, here, "blue")
    ask = "appswitch spawn -- curl -sS http://shop/"
    expect(here.run(ask) == "this is blue\n", "blue answers")

    tell("2. Load: 20 connections that ask as fast as they can.")
    wrk = here.start("appswitch spawn -- wrk -t 2 -c 20 -d 60 http://shop/")
    here.wait_for_connections("shop", 20)

    versions = ["green", "blue-2", "green-2"]
    tell("""
        3. Under that load, three times: the new version starts beside the old one, and has its part of the connections
        at once. `drain` takes the old one out of choice, and returns when its last connection has ended. Then it is
        stopped.""")
    for version in versions:
        new = start(stage, here, version)
        (app,) = [row["app"] for row in here.rows("services") if f"version={version}" not in row["tags"]]
        here.run(f"appswitch drain {app}")
        old.end()
        old = new
        expect(here.run(ask) == f"this is {version}\n", f"{version} answers")

    tell("4. What wrk has seen, in its own words:")
    said = wrk.interrupt()
    expect("Socket errors" not in said and "Non-2xx" not in said, "no request fails")
    count = int(re.findall(r"(\d+) requests in", said)[0])
    expect(count > 1000, "there was load")
    tell(f"""
        What you see: {count:,} requests, {len(versions)} changes of version, no socket error, no answer but 200.
        (wrk has a line `Socket errors` or `Non-2xx` where there is one.)""")


if __name__ == "__main__":
    sys.exit(play(scene, ["nginx", "curl", "wrk"]))
