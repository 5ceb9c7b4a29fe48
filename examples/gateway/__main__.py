"""A gateway: clients outside come in where a program is exposed, and programs go out where a rule lets them.

    python -m examples.gateway

README.md says what there is to see.
"""

from __future__ import annotations

import sys
from pathlib import Path

from examples.stage import HOSTS, Stage, expect, play, tell

GATEWAY, BANK, OTHER = "192.88.99.101", "192.88.99.1", "192.88.99.2"  # tests/hosts.py: internet()


def scene(stage: Stage) -> None:
    """The example."""
    tell(f"""
        1. Two hosts: `gate` has a way to the outside (as {GATEWAY}), `inner` has none. The policy of both lets one
        program out, to one address.""")
    stage.bring(Path(__file__).with_name("policy.toml"))
    network, (gate, inner) = stage.hosts("gate", "inner")
    internet = network.internet(network.hosts[0])
    outside = stage.namespace("outside", internet)
    gate.run("cat policy.toml")
    common = ["--key-file", str(network.key), "--egress", "deny", "--policy", str(stage.home / "policy.toml")]
    gate.serve("--gateway", *common)
    inner.serve("--join", network.hosts[0].address, *common)
    inner.wait_for_nodes(2)
    servers = outside.start(stage.nginx("servers", says="$server_addr sees $remote_addr"))
    servers.wait_until_it_listens(80)

    tell("2. In: a web server on `inner`, whose port 80 is exposed as port 8080 of the gateways.")
    inner.start("appswitch spawn --name web --expose 80:8080 -- " + stage.nginx("web", says="web sees $remote_addr"))
    gate.wait_for("web:80")
    answer = outside.run(f"curl -sS http://{GATEWAY}:8080/")
    expect(answer == f"web sees {BANK}\n", "a client outside comes in, and is seen by its own address")
    tell("Nothing else is to be reached there: that a port is exposed is the permission.")
    outside.run(f"curl -sS http://{GATEWAY}:80/", status=7)

    tell("3. Out: `billing` runs on `inner`, which has no route to the outside. It leaves by the gateway.")
    inner.run("ip route")
    answer = inner.run(f"appswitch spawn --name billing -- curl -sS http://{BANK}/")
    expect(answer == f"{BANK} sees {GATEWAY}\n", "it is let out, and the server sees the gateway")

    tell("4. Denied: another address, and another program.")
    inner.run(f"appswitch spawn --name billing -- curl -sS http://{OTHER}/", status=7)
    inner.run(f"appswitch spawn --name web -- curl -sS http://{BANK}/", status=7)
    tell("Why? And what has happened?")
    expect("egress" in inner.run(f"appswitch why web {BANK}:80", status=1), "no rule lets it out")
    expect(inner.run("appswitch observe --kind deny").count("ECONNREFUSED") >= 2, "both were told of")
    tell("What you see: one host has the way out and in, and the policy says whose it is. No route, no NAT, no proxy.")


if __name__ == "__main__":
    sys.exit(play(scene, ["nginx", "curl", "serf", "ip"], root=HOSTS))
