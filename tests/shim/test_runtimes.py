"""What broke the runtimes of languages elsewhere (INTERCEPTION, "What broke real programs elsewhere")."""

from __future__ import annotations

import sys

import pytest

from tests.harness import Switch
from tests.shim.cases import VIP

PYTHON = sys.executable

NODE = """
const net = require("net");
const listen = (host, more) => new Promise((resolve, reject) => {
  const server = net.createServer(socket => socket.end(`${socket.localAddress} ${socket.remoteAddress}`));
  server.on("error", reject);
  server.listen({port: 3000, host, ...more}, () => resolve(server));
});
const ask = host => new Promise((resolve, reject) => {
  const socket = net.connect({port: 3000, host, noDelay: true, keepAlive: true});
  socket.on("data", data => resolve(data.toString())).on("error", reject);
});
(async () => {
  %s
})().catch(error => { console.log(error.code); process.exit(1); }).then(() => process.exit(0));
"""


def node(switch: Switch, code: str) -> list[str]:
    return switch.run("--ip", VIP, "node", "-e", NODE % code, check=False).stdout.splitlines()


@pytest.mark.program("node")
def test_node_listens_on_any_of_both_versions(switch: Switch) -> None:
    said = node(switch, 'await listen("::"); console.log(await ask("::1")); console.log(await ask("127.0.0.1"));')
    assert said == ["::1 ::1", "::ffff:127.0.0.1 ::ffff:127.0.0.1"]


@pytest.mark.program("node")
def test_node_listens_on_both_loopbacks(switch: Switch) -> None:
    code = 'await listen("::1"); await listen("127.0.0.1"); console.log(await ask("::1"), await ask("127.0.0.1"));'
    assert node(switch, code) == ["::1 ::1 127.0.0.1 127.0.0.1"]


@pytest.mark.program("node")
def test_node_listens_on_any_v6_alone_beside_any_v4(switch: Switch) -> None:
    code = 'await listen("::", {ipv6Only: true}); await listen("0.0.0.0"); console.log(await ask("127.0.0.1"));'
    assert node(switch, code) == ["127.0.0.1 127.0.0.1"]


@pytest.mark.program("node")
def test_node_finds_a_port_taken(switch: Switch) -> None:
    assert node(switch, 'await listen("::"); await listen("::1");') == ["EADDRINUSE"]
    assert node(switch, 'await listen("127.0.0.1"); await listen("127.0.0.1");') == ["EADDRINUSE"]
    assert node(switch, 'await ask("127.0.0.1");') == ["ECONNREFUSED"]


@pytest.mark.program("node")
def test_node_cluster(switch: Switch) -> None:
    """The parent binds, the children accept; descriptors travel by SCM_RIGHTS."""
    code = """
const cluster = require("cluster"), http = require("http");
if (cluster.isPrimary) {
  for (let i = 0; i < 2; i++) cluster.fork();
  let listening = 0;
  cluster.on("listening", async () => {
    if (++listening < 2) return;
    const seen = new Set();
    for (let i = 0; i < 20; i++) {
      const response = await fetch("http://127.0.0.1:3001/", {headers: {connection: "close"}});
      seen.add(await response.text());
    }
    console.log(seen.size);
    process.exit(0);
  });
} else {
  http.createServer((request, response) => response.end(String(process.pid))).listen(3001);
}
"""
    program = switch.directory / "cluster.js"
    program.write_text(code)
    assert switch.run("--ip", VIP, "node", str(program)).stdout == "2\n"


def python(switch: Switch, code: str) -> str:
    return switch.run("--ip", VIP, PYTHON, "-c", code).stdout


def test_getaddrinfo_of_nothing(switch: Switch) -> None:
    """As `python -m http.server` asks where to bind."""
    code = """
import socket
for flags in (0, socket.AI_PASSIVE):
    found = socket.getaddrinfo(None, 8000, type=socket.SOCK_STREAM, flags=flags)
    print(sorted(each[4][0] for each in found))
    for family, kind, protocol, _, address in found:
        server = socket.socket(family, kind, protocol)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(address)
        server.listen()
        server.close()
"""
    assert python(switch, code) == "['127.0.0.1', '::1']\n['0.0.0.0', '::']\n"


def test_names_of_this_host(switch: Switch) -> None:
    code = """
import socket
listener = socket.create_server(("localhost", 0))
socket.create_connection(("localhost", listener.getsockname()[1]))
print(listener.accept()[1][0], socket.gethostbyname("localhost"))
"""
    assert python(switch, code) == "127.0.0.1 127.0.0.1\n"


def test_a_server_that_reloads(switch: Switch) -> None:
    """As uvicorn --reload: the parent binds, passes the descriptor by number to a child that it starts anew."""
    code = """
import socket, subprocess, sys
child = '''
import socket, sys
server = socket.socket(fileno=int(sys.argv[1]))
assert server.getsockname()[0] == "127.0.0.1", server
assert (server.family, server.type, server.proto) == (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP), server
server.listen()
print("ready", flush=True)
connection, address = server.accept()
connection.sendall(b"from the child")
'''
server = socket.socket()
server.bind(("127.0.0.1", 0))
for _ in range(3):
    arguments = [sys.executable, "-c", child, str(server.fileno())]
    process = subprocess.Popen(arguments, pass_fds=[server.fileno()], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\\n"
    print(socket.create_connection(server.getsockname()).makefile().read())
    process.wait()
"""
    assert python(switch, code) == "from the child\n" * 3


def test_python_multiprocessing_over_tcp(switch: Switch) -> None:
    code = """
from multiprocessing.connection import Client, Listener
import threading
listener = Listener(("127.0.0.1", 0), authkey=b"k")
thread = threading.Thread(target=lambda: listener.accept().send([1, 2, 3]))
thread.start()
print(Client(listener.address, authkey=b"k").recv(), listener.address[0])
thread.join()
"""
    assert python(switch, code) == "[1, 2, 3] 127.0.0.1\n"


def test_python_selectors_and_timeouts(switch: Switch) -> None:
    code = """
import asyncio, socket
async def main():
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    for _ in range(50):
        reader, writer = await asyncio.wait_for(asyncio.open_connection(*address), 5)
        assert writer.get_extra_info("peername") == address
        assert await reader.read() == b""
        writer.close()
    dead = socket.socket()
    dead.bind(("127.0.0.1", 0))
    try:
        await asyncio.open_connection(*dead.getsockname())
    except ConnectionRefusedError:
        print("refused")
    silent = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(silent.getsockname(), timeout=0.05)
    try:
        client.recv(1)
    except TimeoutError:
        print("timed out")
asyncio.run(main())
"""
    assert python(switch, code) == "refused\ntimed out\n"


JAVA = """
import java.net.*;
import java.nio.channels.*;
import java.nio.ByteBuffer;

public class Early {
    public static void main(String[] args) throws Exception {
        Selector selector = Selector.open();
        ServerSocketChannel server = ServerSocketChannel.open();
        server.bind(new InetSocketAddress("127.0.0.1", 0));
        SocketChannel client = SocketChannel.open();
        client.configureBlocking(false);
        client.register(selector, SelectionKey.OP_CONNECT); // in the epoll set before it connects
        client.connect(server.getLocalAddress());
        while (!client.finishConnect()) selector.select(1000);
        client.setOption(StandardSocketOptions.TCP_NODELAY, true);
        SocketChannel accepted = server.accept();
        System.out.println(client.getOption(StandardSocketOptions.TCP_NODELAY) + " "
            + client.getLocalAddress().equals(accepted.getRemoteAddress()));
        // A child process closes all descriptors that it inherits.
        System.out.print(new String(new ProcessBuilder("echo", "child").start().getInputStream().readAllBytes()));
        client.write(ByteBuffer.wrap("still".getBytes()));
        ByteBuffer got = ByteBuffer.allocate(5);
        while (got.hasRemaining()) accepted.read(got);
        System.out.println(new String(got.array()));
    }
}
"""


@pytest.mark.program("java")
def test_java_registers_early_and_starts_children(switch: Switch) -> None:
    source = switch.directory / "Early.java"
    source.write_text(JAVA)
    assert switch.run("--ip", VIP, "java", str(source)).stdout == "true true\nchild\nstill\n"
