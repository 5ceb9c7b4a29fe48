"""Programs that speak UDP, unmodified, each under its own spawn."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.test_real_programs import iperf2
from tests.harness import PATIENCE, Switch, eventually

PYTHON = sys.executable


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def said_by(process: subprocess.Popen[str]) -> str:
    log: Path = process.log  # type: ignore[attr-defined]
    return log.read_text()


@pytest.mark.program("iperf")
@pytest.mark.parametrize("flags", [[], ["-R"], ["-r"], ["-d"]], ids=["one", "back", "then back", "both ways"])
def test_iperf2(switch: Switch, flags: list[str]) -> None:
    """The server connects a socket of its own to each client; with -r and -d it sends to one that the client binds."""
    switch.spawn("--name", "server", "iperf", "-s", "-u")
    switch.wait_for("server:5001")
    done = switch.run("--name", "client", *iperf2("-u", "-c", "server", "-b", "5M", *flags), timeout=60)
    assert "Server Report" in done.stdout or flags == ["-R"], done
    lost = [float(share) for share in re.findall(r"\d+/\d+ \(([\d.]+)%\)", done.stdout)]
    assert len(lost) >= (2 if flags in (["-r"], ["-d"]) else 1), done
    assert all(share < 50 for share in lost), done
    assert "WARNING" not in done.stdout + done.stderr


@pytest.mark.program("iperf3")
@pytest.mark.parametrize("flags", [[], ["-R"], ["--bidir"], ["-P", "3"]], ids=["one", "back", "both ways", "parallel"])
def test_iperf3(switch: Switch, flags: list[str]) -> None:
    """Control by TCP, data by UDP, on one port."""
    switch.spawn("--name", "server", "iperf3", "-s")
    switch.wait_for("server:5201")
    command = ["iperf3", "-u", "-c", "server", "-t", "1", "-b", "20M", "--json", *flags]
    done = json.loads(switch.run("--name", "client", *command, timeout=60).stdout)
    for stream in done["end"]["streams"]:
        assert stream["udp"]["bytes"] > 1_000_000, done
        assert stream["udp"]["lost_percent"] < 50, done
    assert len(done["end"]["streams"]) == {"-P": 3, "--bidir": 2}.get(flags[0] if flags else "", 1)


@pytest.mark.program("sockperf")
def test_sockperf(switch: Switch) -> None:
    switch.spawn("--name", "server", "--ip", "10.9.9.1", "sockperf", "sr", "-i", "0.0.0.0", "-p", "11111")
    switch.wait_for("server:11111")
    for command in (["pp"], ["ul", "--mps", "1000", "--reply-every", "10"]):
        done = switch.run("sockperf", *command, "-i", "10.9.9.1", "-p", "11111", "-t", "1", timeout=60)
        assert "dropped messages = 0" in done.stdout, done
        counted = re.search(r"Valid Duration\].* SentMessages=(\d+); ReceivedMessages=(\d+)", done.stdout)
        assert counted, done
        assert int(counted[2]) > 20, done


DNSMASQ = ["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--user=root", "--pid-file="]


def dig(switch: Switch, *arguments: str, ip: str = "10.9.9.9") -> str:
    return switch.run("--ip", ip, "dig", "+tries=2", "+short", *arguments).stdout


@pytest.mark.root
@pytest.mark.program("dnsmasq", "dig")
@pytest.mark.parametrize("how", ["any", "--bind-interfaces", "--bind-dynamic"])
def test_dnsmasq(switch: Switch, how: str) -> None:
    """It learns by IP_PKTINFO which address was asked, and answers from it; or it binds each address by itself."""
    records = [
        "--address=/example.test/192.0.2.1",
        "--txt-record=large.test," + "x" * 250,
        "--host-record=h.test,2001:db8::1",
    ]
    flags = [*DNSMASQ, *records] + ([] if how == "any" else [how])
    switch.spawn("--name", "dns", "--ip", "10.9.9.1", "dnsmasq", *flags)
    switch.wait_for("dns:53")
    assert dig(switch, "+notcp", "@dns", "example.test") == "192.0.2.1\n"
    assert dig(switch, "+notcp", "@10.9.9.1", "a.example.test") == "192.0.2.1\n"
    assert dig(switch, "+tcp", "@10.9.9.1", "example.test") == "192.0.2.1\n"
    assert dig(switch, "@dns", "large.test", "TXT") == f'"{"x" * 250}"\n'
    assert dig(switch, "@dns", "h.test", "AAAA") == "2001:db8::1\n"
    assert dig(switch, "dns") == "10.9.9.1\n", "the names of apps stay where they were"


@pytest.mark.root
@pytest.mark.program("dnsmasq", "dig")
def test_dnsmasq_on_a_port_of_its_own_and_v6(switch: Switch) -> None:
    flags = [*DNSMASQ, "--address=/example.test/192.0.2.1"]
    switch.spawn("--name", "dns", "--ip", "10.9.9.1", "dnsmasq", "--port=5353", *flags)
    switch.spawn("--name", "dns6", "--ip", "fd00:9::1", "dnsmasq", *flags)
    switch.wait_for("dns:5353", "dns6:53")
    assert dig(switch, "@dns", "-p", "5353", "example.test") == "192.0.2.1\n"
    assert dig(switch, "@fd00:9::1", "example.test", ip="fd00:9::2") == "192.0.2.1\n"
    assert dig(switch, "@dns6", "example.test", ip="fd00:9::2") == "192.0.2.1\n"


UNBOUND = """
server:
  interface: 0.0.0.0
  access-control: 0.0.0.0/0 allow
  do-daemonize: no
  chroot: ""
  username: ""
  pidfile: ""
  directory: "{dir}"
  use-syslog: no
  module-config: "iterator"
  num-threads: 2
  local-zone: "test." nodefault
  do-not-query-localhost: no
forward-zone:
  name: "."
  forward-addr: 10.9.9.1
remote-control:
  control-enable: no
"""


@pytest.mark.root
@pytest.mark.program("dnsmasq", "unbound", "dig")
def test_unbound_that_forwards(switch: Switch) -> None:
    """A query passes two apps. Unbound asks from a port of its own choice, another one for each query."""
    switch.spawn("--ip", "10.9.9.1", "--name", "back", "dnsmasq", *DNSMASQ, "--address=/example.test/192.0.2.1")
    config = write(switch.directory / "unbound.conf", UNBOUND.format(dir=switch.directory))
    switch.spawn("--ip", "10.9.9.2", "--name", "front", "unbound", "-d", "-c", config)
    switch.wait_for("back:53", "front:53")
    for i in range(10):
        assert dig(switch, "@front", f"{i}.example.test") == "192.0.2.1\n"


@pytest.mark.root
@pytest.mark.program("in.tftpd", "tftp", "busybox", "curl")
@pytest.mark.parametrize("bound", ["0.0.0.0:69", "10.9.9.1:69"])
def test_tftp(switch: Switch, bound: str) -> None:
    """The server answers from a new port, which it connects to the client; three clients, of which none is alike."""
    data = os.urandom(200_000)
    source = switch.directory / "source"
    source.write_bytes(data)
    source.chmod(0o644)
    server = ["in.tftpd", "-L", "-u", "root", "-a", bound, str(switch.directory)]
    switch.spawn("--name", "files", "--ip", "10.9.9.1", *server)
    switch.wait_for("files:69")
    got = switch.directory / "got"
    for client in (
        ["tftp", "-4", "-m", "binary", "files", "-c", "get", str(source), str(got)],
        ["busybox", "tftp", "-g", "-r", str(source), "-l", str(got), "files"],
        ["curl", "-sS", "-o", str(got), f"tftp://files/{source}"],
    ):
        switch.run("--ip", "10.9.9.2", *client)
        assert got.read_bytes() == data, client
        got.unlink()


@pytest.mark.program("gtlsserver", "gtlsclient", "openssl")
def test_quic(switch: Switch) -> None:
    """ngtcp2: HTTP/3, with GSO, ECN and IP_PKTINFO."""
    directory = switch.directory
    key, certificate = str(directory / "key.pem"), str(directory / "cert.pem")
    make = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=quic"]
    subprocess.run(["openssl", *make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    data = os.urandom(2_000_000)
    (directory / "file").write_bytes(data)
    (directory / "got").mkdir()
    server = ["gtlsserver", "-q", "-d", str(directory), "0.0.0.0", "4433", key, certificate]
    switch.spawn("--name", "quic", "--ip", "10.9.9.1", *server)
    switch.wait_for("quic:4433")
    for host in ("quic", "10.9.9.1"):
        client = ["gtlsclient", "-q", "--exit-on-all-streams-close", f"--download={directory}/got"]
        switch.run("--ip", "10.9.9.2", *client, host, "4433", f"https://{host}:4433/file")
        assert (directory / "got/file").read_bytes() == data
        (directory / "got/file").unlink()


COLLECTD = """
FQDNLookup false
Interval 0.1
BaseDir "{dir}"
PIDFile "{dir}/collectd.pid"
LoadPlugin statsd
LoadPlugin csv
<Plugin statsd>
  Host "::"
  Port "8125"
</Plugin>
<Plugin csv>
  DataDir "stdout"
</Plugin>
"""


@pytest.mark.root
@pytest.mark.program("collectd", "bash")
def test_statsd(switch: Switch) -> None:
    """A collector, and clients that never wait for an answer."""
    config = write(switch.directory / "collectd.conf", COLLECTD.format(dir=switch.directory))
    collector = switch.spawn("--name", "stats", "collectd", "-f", "-C", config)
    switch.wait_for("stats:8125")
    client = 'exec 3>/dev/udp/stats/8125; for i in 1 2 3 4 5 6 7; do echo "hits:1|c" >&3; done; echo "heat:21|g" >&3'
    switch.run("--ip", "10.9.9.2", "bash", "-c", client)
    eventually(lambda: re.search(r"derive-hits.*:7$", said_by(collector), re.MULTILINE))
    eventually(lambda: re.search(r"gauge-heat.*:21\.0", said_by(collector)))


RSYSLOG = """
module(load="imudp")
input(type="imudp" address="0.0.0.0" port="514")
template(name="t" type="string" string="%fromhost-ip% %syslogtag%%msg%\\n")
action(type="omfile" file="{dir}/syslog.out" template="t")
global(workDirectory="{dir}")
"""


@pytest.mark.root
@pytest.mark.program("rsyslogd", "logger")
def test_syslog(switch: Switch) -> None:
    """The server files by who sent it."""
    config = write(switch.directory / "rsyslog.conf", RSYSLOG.format(dir=switch.directory))
    pid = str(switch.directory / "rsyslog.pid")
    switch.spawn("--name", "syslog", "--ip", "10.9.9.1", "rsyslogd", "-n", "-f", config, "-i", pid)
    switch.wait_for("syslog:514")
    for number in (2, 3):
        logger = ["logger", "-n", "syslog", "-P", "514", "--udp", "-t", "mark", f"hello {number}"]
        switch.run("--ip", f"10.9.9.{number}", *logger)
    output = switch.directory / "syslog.out"
    eventually(lambda: output.exists() and output.read_text().count("\n") == 2)
    assert output.read_text() == "10.9.9.2 markhello 2\n10.9.9.3 markhello 3\n"


@pytest.mark.program("nc")
def test_netcat(switch: Switch) -> None:
    """The server connects its own socket to the first who sends."""
    server = switch.spawn("--name", "server", "nc", "-u", "-l", "7000")
    switch.wait_for("server:7000")
    switch.run("sh", "-c", "(echo one; sleep 0.2; echo two) | nc -u -w 1 server 7000")
    eventually(lambda: said_by(server) == "one\ntwo\n")


@pytest.mark.program("socat", "bash")
def test_socat(switch: Switch) -> None:
    """A process for each datagram; and one for each client, with a socket that is connected to it."""
    switch.spawn("--name", "each", "socat", "UDP4-RECVFROM:7000,fork", "EXEC:tr a-z A-Z")
    switch.spawn("--name", "conversation", "socat", "UDP4-LISTEN:7001,fork,reuseaddr", "EXEC:cat")
    switch.wait_for("each:7000", "conversation:7001")
    ask = "exec 3<>/dev/udp/$1/$2; for i in 1 2; do echo hello $i >&3; head -n 1 <&3; done"
    for _ in range(3):
        assert switch.run("bash", "-c", ask, "bash", "each", "7000").stdout == "HELLO 1\nHELLO 2\n"
        assert switch.run("bash", "-c", ask, "bash", "conversation", "7001").stdout == "hello 1\nhello 2\n"


@pytest.mark.program("memcached")
def test_memcached(switch: Switch) -> None:
    """Four threads that read one socket."""
    switch.spawn("--name", "cache", "memcached", "-u", "nobody", "-t", "4", "-U", "11211")
    switch.wait_for("cache:11211")
    code = """
import socket, struct
c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
c.settimeout(10)
c.connect(("cache", 11211))
for i in range(100):
    for command, answer in ((f"set k{i} 0 0 3\\r\\nabc\\r\\n", "STORED\\r\\n"),
                            (f"get k{i}\\r\\n", f"VALUE k{i} 0 3\\r\\nabc\\r\\nEND\\r\\n")):
        c.send(struct.pack("!HHHH", i, 0, 1, 0) + command.encode())
        got = c.recv(2000)
        assert struct.unpack("!H", got[:2])[0] == i and got[8:] == answer.encode(), got
print("fine")
"""
    assert switch.run(PYTHON, "-c", code).stdout == "fine\n"


ASYNCIO_SERVER = """
import asyncio
class Server(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, source):
        self.transport.sendto(repr((data, source[0])).encode(), source)
async def main():
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Server, local_addr=("0.0.0.0", 7000))
    await asyncio.Event().wait()
asyncio.run(main())
"""
ASYNCIO_CLIENT = """
import asyncio
class Client(asyncio.DatagramProtocol):
    def __init__(self):
        self.got = asyncio.Queue()
    def datagram_received(self, data, source):
        self.got.put_nowait((eval(data), source))
    def error_received(self, error):
        self.got.put_nowait(type(error).__name__)
async def main():
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_datagram_endpoint(Client, remote_addr=("aio", 7000))
    for i in range(100):
        transport.sendto(b"%d" % i)
        (data, seen), source = await asyncio.wait_for(client.got.get(), 10)
        assert data == b"%d" % i and source == ("10.9.9.1", 7000)
    print(seen, transport.get_extra_info("sockname")[0], transport.get_extra_info("peername"))
    transport.close()
    transport, client = await loop.create_datagram_endpoint(Client, local_addr=("0.0.0.0", 0))
    transport.sendto(b"unconnected", ("10.9.9.1", 7000))
    print(await asyncio.wait_for(client.got.get(), 10))
    transport.close()
    transport, client = await loop.create_datagram_endpoint(Client, remote_addr=("10.9.9.1", 7001))
    transport.sendto(b"to nobody")
    print(await asyncio.wait_for(client.got.get(), 10))
asyncio.run(main())
"""


def test_python_asyncio(switch: Switch) -> None:
    switch.spawn("--name", "aio", "--ip", "10.9.9.1", PYTHON, "-c", ASYNCIO_SERVER)
    switch.wait_for("aio:7000")
    assert switch.run("--ip", "10.9.9.2", PYTHON, "-c", ASYNCIO_CLIENT).stdout.splitlines() == [
        "10.9.9.2 10.9.9.2 ('10.9.9.1', 7000)",
        "((b'unconnected', '10.9.9.2'), ('10.9.9.1', 7000))",
        "ConnectionRefusedError",
    ]


NODE_SERVER = """
const server = require("dgram").createSocket("udp6");
server.on("message", (data, from) => server.send(`${data} ${from.address}`, from.port, from.address));
server.bind(7000);
"""
NODE_CLIENT = """
const dgram = require("dgram");
const once = (emitter, event) => new Promise(resolve => emitter.once(event, (...values) => resolve(values)));
(async () => {
  const client = dgram.createSocket("udp4");
  client.send("unconnected", 7000, "node");
  let [data, from] = await once(client, "message");
  console.log(String(data), from.address, from.port, client.address().port > 0);
  client.close();
  const connected = dgram.createSocket("udp4");
  connected.connect(7000, "node");
  await once(connected, "connect");
  console.log(connected.address().address, connected.remoteAddress().address);
  for (let i = 0; i < 100; i++) {
    connected.send(`message ${i}`);
    [data] = await once(connected, "message");
  }
  console.log(String(data));
  connected.close();
  const refused = dgram.createSocket("udp4");
  refused.connect(7001, "10.9.9.1");
  await once(refused, "connect");
  refused.send("x");
  const [error] = await once(refused, "error");
  console.log(error.code);
  refused.close();
})();
"""


@pytest.mark.program("node")
def test_node(switch: Switch) -> None:
    """libuv: recvmmsg, and its socket in an epoll set from the start."""
    switch.spawn("--name", "node", "--ip", "10.9.9.1", "node", "-e", NODE_SERVER)
    switch.wait_for("node:7000")
    assert switch.run("--ip", "10.9.9.2", "node", "-e", NODE_CLIENT).stdout.splitlines() == [
        "unconnected ::ffff:10.9.9.2 10.9.9.1 7000 true",
        "10.9.9.2 10.9.9.1",
        "message 99 ::ffff:10.9.9.2",
        "ECONNREFUSED",
    ]


JAVA = """
import java.net.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;

public class Datagrams {
    static String text(DatagramPacket packet) {
        return new String(packet.getData(), 0, packet.getLength());
    }

    static void serve() throws Exception {
        DatagramSocket server = new DatagramSocket(7000);
        DatagramPacket packet = new DatagramPacket(new byte[2000], 2000);
        while (true) {
            packet.setLength(2000);
            server.receive(packet);
            byte[] answer = (text(packet) + " " + packet.getAddress().getHostAddress()).getBytes();
            server.send(new DatagramPacket(answer, answer.length, packet.getSocketAddress()));
        }
    }

    static void bySocket(InetSocketAddress to) throws Exception {
        DatagramSocket client = new DatagramSocket();
        client.setSoTimeout(10000);
        DatagramPacket got = new DatagramPacket(new byte[2000], 2000);
        client.send(new DatagramPacket("socket".getBytes(), 6, to));
        client.receive(got);
        System.out.println(text(got) + " " + got.getSocketAddress().equals(to));
        client.connect(to);
        System.out.println(client.getLocalAddress().getHostAddress());
        client.send(new DatagramPacket("connected".getBytes(), 9));
        client.receive(got);
        System.out.println(text(got));
    }

    static void byChannel(InetSocketAddress to) throws Exception {
        Selector selector = Selector.open();
        DatagramChannel channel = DatagramChannel.open();
        channel.configureBlocking(false);
        channel.register(selector, SelectionKey.OP_READ); // in the epoll set before it connects
        ByteBuffer got = ByteBuffer.allocate(2000);
        channel.send(ByteBuffer.wrap("channel".getBytes()), to);
        while (selector.select(10000) == 0) {}
        selector.selectedKeys().clear();
        System.out.println(channel.receive(got).equals(to) + " " + new String(got.array(), 0, got.position()));
        channel.connect(to);
        channel.write(ByteBuffer.wrap("written".getBytes()));
        while (selector.select(10000) == 0) {}
        got.clear();
        channel.read(got);
        System.out.println(new String(got.array(), 0, got.position()));
    }

    static void refused(String host) throws Exception {
        DatagramSocket client = new DatagramSocket();
        client.setSoTimeout(10000);
        client.connect(new InetSocketAddress(host, 7001));
        try {
            client.send(new DatagramPacket(new byte[1], 1));
            client.receive(new DatagramPacket(new byte[1], 1));
        } catch (PortUnreachableException error) {
            System.out.println("refused");
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 0) serve();
        InetSocketAddress to = new InetSocketAddress(arguments[0], 7000);
        bySocket(to);
        byChannel(to);
        refused(arguments[0]);
    }
}
"""


@pytest.mark.program("java")
def test_java(switch: Switch) -> None:
    source = write(switch.directory / "Datagrams.java", JAVA)
    switch.spawn("--name", "java", "--ip", "10.9.9.1", "java", source)
    switch.wait_for("java:7000")
    done = switch.run("--ip", "10.9.9.2", "java", source, "java", timeout=2 * PATIENCE)
    assert done.stdout.splitlines() == [
        "socket 10.9.9.2 true",
        "10.9.9.2",
        "connected 10.9.9.2",
        "true channel 10.9.9.2",
        "written 10.9.9.2",
        "refused",
    ]
