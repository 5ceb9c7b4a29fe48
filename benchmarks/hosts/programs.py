"""The small programs that run on the hosts. They tell times by CLOCK_MONOTONIC, which all namespaces share."""

LISTEN = """
import random, socket, sys, time
first, count, clients = map(int, sys.argv[1:])
for port in range(first, first + count):
    time.sleep(random.uniform(0.1, 0.3))
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("", port))
    start = time.monotonic()
    s.listen()
    print(start, flush=True)
    for _ in range(clients):
        s.accept()[0].close()
    s.close()
"""
"""FIRST COUNT CLIENTS: listens at one port after the other; at the next one once all clients have got through."""

CONNECT = """
import socket, sys, time
ip, first, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for port in range(first, first + count):
    while True:
        with socket.socket() as s:
            if s.connect_ex((ip, port)) == 0:
                print(time.monotonic(), flush=True)
                break
        time.sleep(0.002)
"""
"""IP FIRST COUNT: tries each port until it answers."""

ANNOUNCE = """
import socket, sys, time
there = []
for port in map(int, sys.stdin):
    s = socket.socket()
    s.bind(("", port))
    start = time.monotonic()
    s.listen()
    there.append(s)
    print(start, flush=True)
"""
"""Listens at each port of its input."""

SERVE = """
import socket
s = socket.create_server(("", 80), backlog=100)
while True:
    c, _ = s.accept()
    c.sendall(b"x")
    c.close()
"""

CONNECT_ALWAYS = """
import socket, time
while True:
    start = time.monotonic()
    try:
        with socket.create_connection(("10.77.9.2", 80)) as s:
            connected, said = time.monotonic(), "ok"
            s.settimeout(0.5)
            try:
                said = "ok" if s.recv(1) else "cut"
            except OSError:
                said = "cut"
    except OSError as error:
        connected, said = time.monotonic(), "failed"
    print(start, connected, said, flush=True)
    time.sleep(0.003)
"""
"""Connects all the time: start, end of the connect, and whether it failed or was cut later."""
