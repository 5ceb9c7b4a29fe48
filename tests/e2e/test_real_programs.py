"""Unmodified servers and clients of every kind, each under its own spawn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Switch, eventually

PYTHON = sys.executable


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.mark.program("redis-server", "redis-cli", "redis-benchmark")
def test_redis(switch: Switch) -> None:
    switch.spawn("--name", "redis", "redis-server", "--save", "", "--protected-mode", "no")
    switch.wait_for("redis:6379")
    assert switch.run("redis-cli", "-h", "redis", "set", "k", "v").stdout == "OK\n"
    assert switch.run("redis-cli", "-h", "redis", "get", "k").stdout == "v\n"
    done = switch.run("redis-benchmark", "-h", "redis", "-c", "50", "-n", "20000", "-t", "set,get", "--csv", timeout=90)
    assert re.search(r'"GET","[1-9]', done.stdout), done
    done = switch.run("redis-benchmark", "-h", "redis", "-c", "50", "-n", "2000", "-k", "0", "-t", "get", timeout=90)
    assert "2000 requests completed" in done.stdout


@pytest.mark.program("redis-server", "redis-cli")
def test_redis_pipelines(switch: Switch) -> None:
    """100,000 commands are on their way while the answers are read as they come."""
    switch.spawn("--name", "redis", "redis-server", "--save", "", "--protected-mode", "no")
    switch.wait_for("redis:6379")
    commands = "".join(f"SET key:{i} {i}\r\n" for i in range(100_000))
    done = switch.run("redis-cli", "-h", "redis", "--pipe", input=commands, timeout=90)
    assert "errors: 0, replies: 100000" in done.stdout
    assert switch.run("redis-cli", "-h", "redis", "dbsize").stdout == "100000\n"


NGINX = """
daemon off; user root; worker_processes 3; pid {dir}/nginx.pid; error_log {dir}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
  access_log {dir}/nginx-access.log;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  server {{ listen 80; listen [::]:80; location / {{ return 200 "from $server_addr to $remote_addr\\n"; }} }}
  {more}
}}
"""


def nginx_config(switch: Switch, more: str = "") -> str:
    return write(switch.directory / "nginx.conf", NGINX.format(dir=switch.directory, more=more))


@pytest.mark.root
@pytest.mark.program("nginx", "curl", "wrk")
def test_nginx_with_several_workers(switch: Switch) -> None:
    switch.spawn("--name", "web", "--ip", "10.9.9.1", "nginx", "-c", nginx_config(switch))
    switch.wait_for("web:80")
    done = switch.run("--ip", "10.9.9.2", "curl", "-s", "http://web/")
    assert done.stdout == "from 10.9.9.1 to 10.9.9.2\n"
    done = switch.run("--ip", "fd00::2", "curl", "-s", "http://web/")
    assert "from 10.9.9.1 to 169.254." in done.stdout
    done = switch.run("wrk", "-t", "2", "-c", "40", "-d", "2s", "http://web/")
    assert "Socket errors" not in done.stdout
    assert int(re.findall(r"(\d+) requests in", done.stdout)[0]) > 1000
    done = switch.run("wrk", "-t", "2", "-c", "20", "-d", "1s", "-H", "Connection: close", "http://web/")
    assert int(re.findall(r"(\d+) requests in", done.stdout)[0]) > 100


@pytest.mark.root
@pytest.mark.program("nginx", "curl")
def test_nginx_as_a_proxy(switch: Switch) -> None:
    """It puts the upstream's socket into its epoll set before connect."""
    switch.spawn("--name", "back", PYTHON, "-m", "http.server", "8000", "--directory", str(switch.directory))
    switch.wait_for("back:8000")
    more = "server { listen 81; location / { proxy_pass http://back:8000; } }"
    switch.spawn("--name", "front", "nginx", "-c", nginx_config(switch, more))
    switch.wait_for("front:81")
    write(switch.directory / "hello", "hello\n" * 100000)
    for _ in range(5):
        assert switch.run("curl", "-sS", "http://front:81/hello").stdout == "hello\n" * 100000


URLLIB = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).status)"
ASYNCIO = """
import asyncio, sys
async def get():
    reader, writer = await asyncio.open_connection(sys.argv[1], 8000)
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    line = await reader.readline()
    writer.close()
    return line.split()[1]
async def main():
    print(*{(await each).decode() for each in asyncio.as_completed([get() for _ in range(20)])})
asyncio.run(main())
"""


def test_python_http_server_and_clients(switch: Switch) -> None:
    switch.spawn("--name", "web", PYTHON, "-m", "http.server", "8000", "--directory", str(switch.directory))
    switch.wait_for("web:8000")
    assert switch.run(PYTHON, "-c", URLLIB, "http://web:8000/").stdout == "200\n"
    assert switch.run(PYTHON, "-c", ASYNCIO, "web").stdout == "200\n"


def test_python_asyncio_server(switch: Switch) -> None:
    code = """
import asyncio
async def handle(reader, writer):
    writer.write(repr((writer.get_extra_info("sockname")[:2], writer.get_extra_info("peername")[0])).encode())
    writer.close()
async def main():
    server = await asyncio.start_server(handle, None, 7000)
    await server.serve_forever()
asyncio.run(main())
"""
    switch.spawn("--ip", "10.9.9.3", "--name", "aio", PYTHON, "-c", code)
    switch.wait_for("aio:7000")
    client = "import socket; print(socket.create_connection(('aio', 7000)).recv(999).decode())"
    assert switch.run("--ip", "10.9.9.4", PYTHON, "-c", client).stdout == "(('10.9.9.3', 7000), '10.9.9.4')\n"


def iperf2(*flags: str) -> list[str]:
    """With -r and -d the server has to connect back within the time that the test lasts (iperf2's Listener.cpp)."""
    return ["iperf", "-t", "3" if {"-r", "-d"} & {*flags} else "1", *flags]


@pytest.mark.program("iperf")
@pytest.mark.parametrize("flags", [[], ["-r"], ["-P", "4"], ["-d"]], ids=["one", "reverse", "parallel", "both ways"])
def test_iperf2(switch: Switch, flags: list[str]) -> None:
    """-r and -d: the server connects back to the client, which listens."""
    switch.spawn("--name", "server", "iperf", "-s")
    switch.wait_for("server:5001")
    done = switch.run("--name", "client", *iperf2("-c", "server", *flags), timeout=60)
    assert len(re.findall(r"[GM]bits/sec", done.stdout)) >= (5 if "-P" in flags else 1 if not flags else 2), done
    assert "failed" not in done.stdout + done.stderr


@pytest.mark.program("iperf3")
@pytest.mark.parametrize("flags", [[], ["-R"], ["-P", "4"], ["--bidir"]], ids=["one", "reverse", "parallel", "bidir"])
def test_iperf3(switch: Switch, flags: list[str]) -> None:
    switch.spawn("--name", "server", "iperf3", "-s")
    switch.wait_for("server:5201")
    done = switch.run("iperf3", "-c", "server", "-t", "1", "-J", *flags, timeout=60)
    report = json.loads(done.stdout)
    assert "error" not in report
    assert report["end"]["sum_received"]["bits_per_second"] > 1e8


NODE_SERVER = """
const server = require("http").createServer((request, response) => response.end(
  JSON.stringify([request.socket.localAddress, request.socket.localPort, request.socket.remoteAddress])));
server.listen(3000);
"""
NODE_CLIENT = """
(async () => {
  const dns = require("dns").promises;
  const texts = new Set();
  for (let i = 0; i < 20; i++) texts.add(await (await fetch("http://api:3000/")).text());
  console.log(JSON.stringify([[...texts], await dns.resolve("api"), (await dns.lookup("api")).address,
    await dns.resolve("nothing.appswitch.local").catch(error => error.code),
    await dns.resolve6("api").catch(error => error.code)]));
})();
"""


@pytest.mark.program("node")
def test_node_server_fetch_and_c_ares(switch: Switch) -> None:
    switch.spawn("--name", "api", "--ip", "10.9.9.5", "node", "-e", NODE_SERVER)
    switch.wait_for("api:3000")
    done = switch.run("--ip", "10.9.9.6", "node", "-e", NODE_CLIENT)
    texts, resolved, looked_up, nothing, v6 = json.loads(done.stdout)
    assert [json.loads(text) for text in texts] == [["::ffff:10.9.9.5", 3000, "::ffff:10.9.9.6"]]
    assert resolved == ["10.9.9.5"]
    assert looked_up == "10.9.9.5"
    assert nothing == "ENOTFOUND"
    assert v6 == "ENODATA"


def postgres_programs() -> Path:
    return max(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.mark.root
@pytest.mark.program("psql")
def test_postgres_as_an_ordinary_user(switch: Switch) -> None:
    programs = postgres_programs()
    data = switch.directory / "data"
    data.mkdir()
    os.chown(data, 65534, -1)
    switch.run("--user", "nobody", str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "nobody")
    with (data / "pg_hba.conf").open("a") as hba:
        hba.write("host all all 10.9.9.8/32 trust\n")
    switch.spawn(
        "--user", "nobody", "--name", "db", "--ip", "10.9.9.7",
        str(programs / "postgres"), "-D", str(data), "-h", "*", "-k", str(data),
    )  # fmt: skip
    switch.wait_for("db:5432")
    query = ["psql", "-h", "db", "-U", "nobody", "-d", "postgres", "-Atc"]
    eventually(lambda: switch.run("--ip", "10.9.9.8", *query, "select 1", check=False).stdout == "1\n")
    who = "select inet_client_addr(), inet_server_addr(), inet_server_port()"
    assert switch.run("--ip", "10.9.9.8", *query, who).stdout == "10.9.9.8|10.9.9.7|5432\n"
    refused = switch.run("--ip", "10.9.9.99", *query, "select 1", check=False)
    assert "no pg_hba.conf entry" in refused.stderr
    # The server trusts 127.0.0.1: who asks from inside the distributed application comes from there.
    inside = ["psql", "-h", "127.0.0.1", "-U", "nobody", "-d", "postgres", "-Atc", "select inet_client_addr()"]
    assert switch.run("--ip", "10.9.9.7", *inside).stdout == "127.0.0.1\n"


@pytest.mark.root
@pytest.mark.program("psql")
def test_psql_waits_for_postgres(switch: Switch) -> None:
    """Started first; the database appears in its time."""
    programs = postgres_programs()
    data = switch.directory / "data"
    data.mkdir()
    os.chown(data, 65534, -1)
    psql = ["psql", "-h", "db", "-U", "nobody", "-d", "postgres", "-Atc", "select 40 + 2"]
    # The port is open a moment before the database takes questions: psql asks until it does.
    script = 'until out=$("$@" 2>/dev/null) || [ $? != 2 ]; do :; done; echo "$out"'
    client = switch.spawn("--name", "app", "--wait-for", "db:5432", "sh", "-c", script, "sh", *psql,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    switch.run("--user", "nobody", str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "nobody")
    with (data / "pg_hba.conf").open("a") as hba:
        hba.write("host all all 0.0.0.0/0 trust\n")
    assert client.poll() is None
    server = [str(programs / "postgres"), "-D", str(data), "-h", "*", "-k", str(data)]
    switch.spawn("--user", "nobody", "--name", "db", "--ip", "10.9.9.7", *server)
    assert client.communicate(timeout=60)[0] == "42\n"


@pytest.mark.program("memcached")
def test_memcached(switch: Switch) -> None:
    switch.spawn("--name", "cache", "memcached", "-u", "nobody", "-t", "4")
    switch.wait_for("cache:11211")
    code = """
import socket
for i in range(50):
    s = socket.create_connection(("cache", 11211))
    s.sendall(b"set k%d 0 0 3\\r\\nabc\\r\\nget k%d\\r\\nquit\\r\\n" % (i, i))
    text = b"".join(iter(lambda: s.recv(999), b""))
    assert text == b"STORED\\r\\nVALUE k%d 0 3\\r\\nabc\\r\\nEND\\r\\n" % i, text
print("fine")
"""
    assert switch.run(PYTHON, "-c", code).stdout == "fine\n"


JAVA = """
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
public class Web {
    public static void main(String[] args) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(8080), 0);
        server.createContext("/", exchange -> {
            byte[] body = (exchange.getLocalAddress() + " " + exchange.getRemoteAddress().getAddress()).getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
"""


@pytest.mark.program("java", "curl")
def test_java_http_server(switch: Switch) -> None:
    source = write(switch.directory / "Web.java", JAVA)
    switch.spawn("--name", "java", "--ip", "10.9.9.10", "java", source)
    switch.wait_for("java:8080")
    done = switch.run("--ip", "10.9.9.11", "curl", "-sS", "http://java:8080/")
    assert done.stdout == "/10.9.9.10:8080 /10.9.9.11"


def test_a_pipeline_inside_one_spawn(switch: Switch) -> None:
    server = "import socket; s = socket.create_server(('', 7000)); c = s.accept()[0]; print(c.makefile().read())"
    client = "import socket; s = socket.create_connection(('127.0.0.1', 7000)); s.sendall(b'a\\nb\\nc'); print('sent')"
    script = f'{PYTHON} -c "{server}" > out & until {PYTHON} -c "{client}" 2>/dev/null; do :; done | tr a-z A-Z; wait'
    done = switch.run("sh", "-c", f"{script}; sort -r out | tr '\\n' ' '", cwd=switch.directory)
    assert done.stdout.split() == ["SENT", "c", "b", "a"]
