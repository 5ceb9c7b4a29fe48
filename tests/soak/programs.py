"""The programs that a soak runs under `appswitch spawn`: sources for `python -c`."""

SERVER = """
import socket, sys, threading
name, instance = sys.argv[1:]
def answer(connection, peer):
    with connection:
        connection.sendall(f"{name} {instance} {peer[0]}\\n".encode())
        while data := connection.recv(65536):
            connection.sendall(data)
listener = socket.create_server(("", 80), backlog=512)
while True:
    threading.Thread(target=answer, args=listener.accept(), daemon=True).start()
"""
"""Says who it is and who calls, then all that it hears."""

CLIENT = """
import errno, json, random, socket, sys
kept = {}
def open_to(name):
    connection = socket.create_connection((name, 80), 60)
    greeting = connection.makefile("rb").readline().decode().split()
    if not greeting:
        raise OSError(errno.ECONNABORTED, "closed at once")
    return connection, greeting
def exchange(connection, size):
    data, heard = random.randbytes(size), b""
    sent = 0
    while len(heard) < size:
        if sent < size:
            sent += connection.send(data[sent:sent + 16384])
        heard += connection.recv(65536) or b"too short" * size
    return heard == data
for line in sys.stdin:
    word, name, size = line.split()
    answer = {}
    try:
        if word == "connect":
            connection, answer["greeting"] = open_to(name)
            with connection:
                answer["whole"] = exchange(connection, int(size))
        else:
            if name not in kept:
                kept[name], answer["greeting"] = open_to(name)
            answer["whole"] = exchange(kept[name], int(size))
    except (OSError, ValueError) as error:
        answer["error"] = getattr(error, "errno", None) or repr(error)
    print(json.dumps(answer), flush=True)
"""
"""`connect NAME SIZE`, `keep NAME SIZE` (on a connection that it keeps): a line of JSON for each; greeting: what the
server says first; whole: whether it said what it heard; error: an errno, or what else went wrong."""
