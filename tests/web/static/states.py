"""States as /api/state has them, made up."""

from __future__ import annotations

from typing import Any

LAST = 1_795_000_000.0


class State:
    """A state that grows: `app`, `serve`, `flow`; `value` is what /api/state would say."""

    def __init__(self, *nodes: str) -> None:
        self.value: dict[str, Any] = {"node": nodes[0], "version": 1, "externals": [], "connections": []}
        self.value["nodes"] = [
            {"name": name, "state": "alive", "gateway": False, "address": None, "port": None, "seq": 1, "agreed": None}
            for name in nodes
        ]
        self.value |= {"apps": [], "services": [], "flows": []}

    def app(
        self, node: str, name: str | None, ip: str, *ports: int, tags: tuple[str, ...] = (), **more: Any
    ) -> dict[str, Any]:
        """An app of a node that serves TCP ports, or none."""
        number = 1 + sum(app["node"] == node for app in self.value["apps"])
        app = {
            "id": number,
            "name": name,
            "ip": ip,
            "tags": list(tags),
            "node": node,
            "pid": 1000 + number,
            "netns": True,
        }
        app |= {"state": "up", "command": [name or "curl"], **more}
        self.value["apps"].append(app)
        for port in ports:
            service = {
                "name": name,
                "ip": ip,
                "port": port,
                "proto": "tcp",
                "app": number,
                "node": node,
                "tags": list(tags),
            }
            service |= {"real": "/run/x", "medium": "unix", "scope": "public", "state": "up", "exposed": []}
            self.value["services"].append(service)
        return app

    def flow(
        self, client: dict[str, Any], server: dict[str, Any], port: int, medium: str = "unix", **numbers: Any
    ) -> None:
        """What goes from one app to another; both may be `outside(...)`."""
        ends = {
            "client": {key: client.get(key) for key in ("name", "ip", "node", "tags")} | {"app": client.get("id")},
            "server": {key: server.get(key) for key in ("name", "ip", "node")}
            | {"app": server.get("id"), "port": port},
        }
        flow = {
            **ends,
            "proto": "udp" if medium == "udp" else "tcp",
            "medium": medium,
            "connects": 10,
            "rate": 0.0,
            "open": 0,
        }
        self.value["flows"].append(flow | {"denied": 0, "denied_rate": 0.0, "rule": None, "last": LAST, **numbers})

    def deny(
        self, client: dict[str, Any], server: dict[str, Any], port: int, rule: str = "grp", denied: int = 3
    ) -> None:
        """A flow of denied attempts."""
        self.flow(client, server, port, connects=0, denied=denied, denied_rate=0.2, rule=rule)


def outside(ip: str, name: str | None = None, node: str | None = None) -> dict[str, Any]:
    """An end that is no app."""
    return {"name": name, "ip": ip, "node": node}


def shop() -> State:
    """Three hosts, all media, a denied attempt: what a person may well run."""
    state = State("alpha", "beta", "gamma")
    state.value["nodes"][2]["gateway"] = True
    web1 = state.app("alpha", "web", "10.0.0.1", 80, 443, tags=("grp=front", "env=prod"), command=["nginx"])
    state.app("alpha", "web", "10.0.0.1", 80, 443, tags=("grp=front", "env=prod"), command=["nginx"])
    cart = state.app("alpha", "cart", "10.0.0.4", 8080, tags=("grp=front", "grp=back", "env=prod"))
    login = state.app("beta", "login", "10.0.0.5", 8080, tags=("grp=front", "grp=back", "env=prod"))
    database = state.app("beta", "db", "10.0.0.9", 5432, tags=("grp=back", "env=prod"), command=["postgres"])
    cache = state.app("beta", "cache", "10.0.0.8", 6379, tags=("grp=back",), command=["redis-server"])
    mail = state.app("gamma", "mail", "10.0.0.7", 25, tags=("env=prod",))
    stats = state.app("gamma", "metrics", "10.0.0.11", 8125)
    probe = state.app("alpha", "probe", "10.1.0.2", tags=("env=test",), command=["python3", "probe.py"])
    batch = state.app("beta", "nightly-report", "10.1.0.3", tags=("grp=back",))
    curl = state.app("gamma", None, "169.254.7.1", command=["/usr/bin/curl", "web"])
    state.flow(outside("198.51.100.7", node="gamma"), web1, 80, "tcp", rate=42.5, connects=1234, open=3)
    state.flow(web1, cart, 8080, rate=12.3, connects=800, open=2)
    state.flow(web1, login, 8080, "tcp", rate=3.1, connects=90, open=1)
    state.flow(cart, database, 5432, "tcp", rate=0.4, connects=44, open=8)
    state.flow(login, database, 5432, rate=2.2, connects=70, open=4)
    state.flow(login, cache, 6379, rate=61.0, connects=9000, open=4)
    state.flow(cart, cache, 6379, "tcp", rate=9.0, connects=800, open=4)
    state.flow(cart, stats, 8125, "udp", rate=5.0, connects=800, open=0)
    state.flow(login, stats, 8125, "udp", rate=2.0, connects=80, open=0)
    state.flow(batch, database, 5432, rate=0.0, connects=4, open=1)
    state.flow(cart, mail, 25, "tcp", rate=0.1, connects=4, open=0)
    state.flow(mail, outside("203.0.113.25", "smtp.example.com"), 25, "tcp", rate=0.1, connects=4, open=1)
    state.flow(login, outside("203.0.113.80", "id.example.com"), 443, "gateway", rate=1.1, connects=14, open=1)
    state.flow(curl, web1, 80, "tcp", rate=0.3, connects=14, open=0)
    state.deny(probe, database, 5432)
    state.deny(probe, cache, 6379, denied=1)
    return state


def hub(clients: int) -> State:
    """A service, and many clients that are alike but for their names."""
    state = State("n1")
    server = state.app("n1", "db", "10.0.0.1", 5432)
    for number in range(clients):
        client = state.app("n1", f"worker-{number:03}", f"10.1.{number // 200}.{number % 200 + 1}")
        state.flow(client, server, 5432, rate=0.5, connects=3, open=1)
    return state
