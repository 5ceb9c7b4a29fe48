"""LD_PRELOAD alone: names, addresses and load balancing for programs that nobody wraps. No root, no namespace.

    python -m examples.preload

README.md says what there is to see.
"""

from __future__ import annotations

import sys

from examples.stage import Stage, expect, play, tell

PRELOAD = "LD_PRELOAD=$(appswitch --shim-path)"


def scene(stage: Stage) -> None:
    """The example."""
    here = stage.here()
    tell("1. A trap handler, as whoever you are, and the library that programs load.")
    here.serve()
    here.run("appswitch --shim-path")

    tell("2. Two web servers with the library loaded. Variables say who they are: both are `web`, both take port 80.")
    for name in ("one", "two"):
        here.start(f"{PRELOAD} APPSWITCH_NAME=web {stage.nginx(name, f'web server {name}')}")
    here.wait_for("web:80", instances=2)
    here.run("appswitch services")

    tell("3. A client that has the library finds them by name, in turn.")
    ask = f"{PRELOAD} curl -sS http://web/"
    answers = [here.run(ask) for _ in range(4)]
    expect(sorted(answers) == ["web server one\n"] * 2 + ["web server two\n"] * 2, "both answer")

    tell("4. Tags go the same way: this one is in group `data`, and who isn't doesn't reach it.")
    here.start(
        f"{PRELOAD} APPSWITCH_IP=10.0.0.7 APPSWITCH_NAME=store APPSWITCH_TAGS=grp=data,env=test"
        f" {stage.nginx('store', 'the store, to $remote_addr')}"
    )
    here.wait_for("store:80")
    stranger = here.run(f"{PRELOAD} curl -sS http://store/", status=7)
    expect("connect to store port 80" in stranger, "who isn't in the group is refused")
    friend = here.run(f"{PRELOAD} APPSWITCH_IP=10.0.0.8 APPSWITCH_TAGS=grp=data curl -sS http://store/")
    expect(friend == "the store, to 10.0.0.8\n", "who is in the group is answered")

    tell("5. Without the library there is nothing: no port 80 of this host was taken.")
    expect("resolve host" in here.run("curl -sS http://store/", status=6), "the host doesn't know the name")
    tell("""
        What you see: the library is all that a program needs. What it lacks without `appswitch spawn` is the namespace:
        nothing keeps the program from the host's own network, and the identity is as strong as the boundary between
        two processes of one user.""")


if __name__ == "__main__":
    sys.exit(play(scene, ["nginx", "curl"]))
