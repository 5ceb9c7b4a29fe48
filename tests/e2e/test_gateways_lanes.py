"""Clients from outside to instances on other hosts, by lanes: no Python is in their way, and what changes holds at once
all the same.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import eventually
from tests.hosts import INTERNET, Host, Namespace, network, only

pytestmark = [pytest.mark.root, pytest.mark.program("serf", "nginx", "curl")]

GATEWAY, CLIENT = INTERNET + "101", INTERNET + "1"
PORT = 8080

NGINX = """
daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx-error.log; user root; worker_processes 1;
events {{ worker_connections 1000; }}
http {{
  access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 80; return 200 "{name}: $remote_addr to $server_addr:$server_port\\n"; }}
}}
"""
DENY = '[[rule]]\nname = "closed"\naction = "deny"\nto = { name = "web" }\n'
ADDRESSES = DENY + 'from = { cidr = "198.51.100.0/24" }\n'


class Scene:
    """A gateway and what is outside; nginx on hosts inside."""

    def __init__(self, gateway: Host, inner: list[Host], outside: Namespace) -> None:
        self.gateway, self.inner, self.outside = gateway, inner, outside

    def get(self, count: int = 1) -> Counter[str]:
        """What so many clients are told, one after another; "" for each that is told nothing."""
        url = f"http://{GATEWAY}:{PORT}/?[1-{count}]"
        command = [*self.outside.enter, "curl", "-s", "-m", "5", "-H", "Connection: close", url]
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        found = Counter(line.partition(":")[0] for line in said.splitlines())
        assert all(line.endswith(f": {CLIENT} to {GATEWAY}:{PORT}") for line in said.splitlines())
        return found + Counter({"": count - found.total()})

    def without_the_gateways_trap_handler(self, count: int = 1) -> Counter[str]:
        """As `get`, while that is stopped: who is answered has come by a lane."""
        self.gateway.server.send_signal(signal.SIGSTOP)
        try:
            return self.get(count)
        finally:
            self.gateway.server.send_signal(signal.SIGCONT)

    def spawn(self, host: Host, *arguments: str) -> None:
        config = host.directory / "nginx.conf"
        config.write_text(NGINX.format(dir=host.directory, name=host.name))
        host.spawn("--name", "web", "--expose", f"80:{PORT}", *arguments, "nginx", "-c", str(config))
        eventually(lambda: only(self.gateway.rows("services"), node=host.name))


@contextmanager
def scene(*names: str, policy: Path | None = None) -> Iterator[Scene]:
    with network() as net:
        gateway, *inner = hosts = [net.add(name) for name in ("gw", *names)]
        outside = net.internet(gateway)
        for host in hosts:
            more = ["--gateway", "--gateway-bind", GATEWAY] if host is gateway else ["--join", gateway.address]
            more += ["--policy", str(policy)] if policy and host is not gateway else []
            host.serve("--key-file", str(net.key), *more)
        for host in hosts:
            eventually(lambda host=host: len(host.tables()) == len(hosts))
            host.command("nodes", "--wait")
        yield Scene(gateway, inner, outside)


def test_clients_need_no_trap_handler_and_are_known_all_the_same(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("")
    with scene("a", policy=policy) as made:
        (inner,) = made.inner
        made.spawn(inner)
        made.get()
        assert made.without_the_gateways_trap_handler(20) == {"a": 20}
        for host in (made.gateway, inner):  # both tell of all
            eventually(lambda host=host: len(host.events("--kind", "connect")) >= 21)
            told = host.events("--kind", "connect")[-1]
            assert (str(told["source"]).partition(":")[0], told["medium"]) == (CLIENT, "tcp")
        command = [*made.outside.enter, "nc", GATEWAY, str(PORT)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as idle:
            for host in (made.gateway, inner):
                eventually(lambda host=host: host.rows("connections"))
                (row,) = host.rows("connections")
                assert (row["client_ip"], row["dest_ip"], row["server_name"]) == (CLIENT, GATEWAY, "web")
            # a rule on addresses: each is judged
            policy.write_text(ADDRESSES)
            inner.server.send_signal(signal.SIGHUP)
            eventually(lambda: "policy" in log_of(inner))
            assert made.get(3) == {"a": 3}
            # and nobody may come any more, at once
            policy.write_text("")
            inner.server.send_signal(signal.SIGHUP)
            eventually(lambda: made.without_the_gateways_trap_handler(1) == {"a": 1} or not made.get())
            policy.write_text(DENY)
            inner.server.send_signal(signal.SIGHUP)
            eventually(lambda: made.get() == {"": 1})
            assert made.get(3) == {"": 3}
            assert inner.events("--kind", "deny")[-1]["rule"] == "closed"
            idle.kill()


def log_of(host: Host) -> str:
    return "".join(each.read_text() for each in host.directory.glob("*.log"))


def test_trap_handlers_that_are_started_anew(tmp_path: Path) -> None:
    with scene("a") as made:
        (inner,) = made.inner
        made.spawn(inner)
        made.get()
        assert made.without_the_gateways_trap_handler(5) == {"a": 5}
        command = [*made.outside.enter, "nc", GATEWAY, str(PORT)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as kept:
            eventually(lambda: inner.rows("connections"))
            key = str(next(made.gateway.directory.parent.glob("key")))
            inner.kill_server()
            inner.serve("--key-file", key, "--join", made.gateway.address)
            eventually(lambda: made.get() == {"a": 1})
            made.gateway.kill_server()
            made.gateway.serve("--key-file", key, "--gateway", "--gateway-bind", GATEWAY, "--join", inner.address)
            eventually(lambda: made.get() == {"a": 1})
            eventually(lambda: made.without_the_gateways_trap_handler(5) == {"a": 5} or not made.get())
            said, _ = kept.communicate(b"GET / HTTP/1.0\r\n\r\n", timeout=20)
            assert said.endswith(f"a: {CLIENT} to {GATEWAY}:{PORT}\n".encode())


def test_instances_take_turns_and_one_that_goes_is_not_missed() -> None:
    with scene("a", "b") as made:
        first, second = made.inner
        made.spawn(first, "--tag", "weight=3")
        made.spawn(second)
        made.get(2)
        assert made.without_the_gateways_trap_handler(40) == {"a": 30, "b": 10}
        first.kill()
        assert made.get(20) == {"b": 20}
        assert made.get(20) == {"b": 20}


def test_whoever_observes_sees_each() -> None:
    with scene("a") as made:
        (inner,) = made.inner
        made.spawn(inner)
        made.get()
        log = made.gateway.directory / "observed"
        with log.open("w") as output:
            command = [*made.gateway.appswitch, "observe", "-f", "--json", "--kind", "connect"]
            process = made.gateway._popen(command, stdout=output)
        eventually(lambda: log.read_text())  # what was before
        before = len(log.read_text().splitlines())
        made.get(50)
        eventually(lambda: len(log.read_text().splitlines()) == before + 50)
        os.killpg(process.pid, signal.SIGKILL)
