"""The paper's Figure 1 on three hosts: Web, App and DB share one virtual IP, and yet Web can't reach the DB.

    python -m examples.figure1

README.md says what there is to see.
"""

from __future__ import annotations

import sys
from pathlib import Path

from examples.stage import HOSTS, Stage, expect, play, tell

VIP = "10.9.9.1"


def scene(stage: Stage) -> None:
    """The example."""
    tell("1. Three hosts, 10.99.0.1 to 10.99.0.3, with a trap handler each. One address is all that they are told.")
    network, (a, b, c) = stage.hosts("a", "b", "c")
    a.serve("--key-file", str(network.key))
    for other in (b, c):
        other.serve("--key-file", str(network.key), "--join", "10.99.0.1")
    for each in (a, b, c):
        each.wait_for_nodes(3)
    a.run("appswitch nodes")

    tell("""
        2. The DB on host c, App on host b, Web on host a. All have the virtual IP 10.9.9.1: they are one application.
        The tag grp says who reaches whom: Web is in group 1, App in 1 and 2, the DB in 2.""")
    stage.bring(Path(__file__).with_name("app.py"))
    c.start(f"appswitch spawn --ip {VIP} --name db --tag grp=2 -- redis-server --save '' --protected-mode no")
    b.start(f"appswitch spawn --ip {VIP} --name app --tag grp=1 --tag grp=2 -- python3 app.py")
    a.start(
        f"appswitch spawn --ip {VIP} --name web --tag grp=1 -- " + stage.nginx("web", passes_to="http://127.0.0.1:8000")
    )
    a.wait_for("db:6379", "app:8000", "web:80")
    b.run("appswitch services")

    tell("""
        3. A client of group 1 asks Web, Web asks App, App asks the DB. Web and App look for the next one at 127.0.0.1:
        for programs that share a virtual IP that is one localhost, on whatever hosts they are.""")
    client = "appswitch spawn --ip 10.9.9.9 --tag grp=1 --"
    for count in (1, 2):
        expect(f"visit {count}\n" in a.run(f"{client} curl -sS http://web/"), "all three answer")

    tell("4. Now a program that is what Web is, beside it: the same IP, the same group. It asks the DB itself.")
    as_web = f"appswitch spawn --ip {VIP} --name web --tag grp=1 --"
    for address in ("127.0.0.1", "db"):
        expect("refused" in a.run(f"{as_web} redis-cli -h {address} ping", status=1), "Web doesn't reach the DB")
    tell("The same as App, from the same host:")
    as_app = f"appswitch spawn --ip {VIP} --name app --tag grp=1 --tag grp=2 --"
    expect("PONG" in a.run(f"{as_app} redis-cli -h 127.0.0.1 ping"), "App reaches the DB")

    tell("5. Why? Any host says it:")
    b.run("appswitch why app db:6379")
    expect("grp rule denies" in a.run("appswitch why web db:6379", status=1), "the groups decide")
    tell("And what was refused has been an event:")
    expect("grp" in a.run("appswitch observe --kind deny"), "it is told of")
    tell("What you see: an address is no permission. Who a program is says its tags, wherever it runs.")


if __name__ == "__main__":
    sys.exit(play(scene, ["nginx", "redis-server", "redis-cli", "curl", "serf", "ip"], root=HOSTS))
