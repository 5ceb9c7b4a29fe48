"""Programs built with musl: another libc, another resolver, the same shim."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import Switch

# `talk serve PORT` answers each connection with the client's address; `talk ask NAME PORT` prints what it is told.
TALK = r"""
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int serve(struct addrinfo *at) {
    int listener = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
    if (bind(listener, at->ai_addr, at->ai_addrlen) || listen(listener, 10)) return perror("listen"), 1;
    for (;;) {
        struct sockaddr_storage peer;
        socklen_t size = sizeof peer;
        char name[100] = "?";
        int client = accept(listener, (struct sockaddr *)&peer, &size);
        getnameinfo((struct sockaddr *)&peer, size, name, sizeof name, 0, 0, NI_NUMERICHOST);
        if (write(client, name, strlen(name)) < 0) perror("write");
        close(client);
    }
}

static int ask(struct addrinfo *at) {
    char text[100];
    int client = socket(at->ai_family, at->ai_socktype, at->ai_protocol);
    if (connect(client, at->ai_addr, at->ai_addrlen)) return perror("connect"), 1;
    ssize_t size = read(client, text, sizeof text);
    return printf("%.*s\n", (int)size, text) < 0;
}

int main(int count, char **argument) {
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = count == 3 ? AI_PASSIVE : 0};
    int error = getaddrinfo(count == 3 ? 0 : argument[2], argument[count - 1], &hints, &found);
    if (error) return fprintf(stderr, "%s\n", gai_strerror(error)), 1;
    return count == 3 ? serve(found) : ask(found);
}
"""


@pytest.fixture
def talk(tmp_path: Path) -> str:
    (tmp_path / "talk.c").write_text(TALK)
    command = ["musl-gcc", "-O1", "-Wall", "-Werror", "-o", str(tmp_path / "talk"), str(tmp_path / "talk.c")]
    subprocess.run(command, check=True)
    assert b"ld-musl" in (tmp_path / "talk").read_bytes(), "dynamically linked to musl"
    return str(tmp_path / "talk")


@pytest.mark.program("musl-gcc")
def test_a_musl_server_and_a_musl_client(switch: Switch, talk: str) -> None:
    """By a name without an IPv6 address: musl asks for both kinds, and gives up when one of them is NXDOMAIN."""
    switch.spawn("--name", "server", "--ip", "10.9.9.1", talk, "serve", "7000")
    switch.wait_for("server:7000")
    assert switch.run("--ip", "10.9.9.2", talk, "ask", "server", "7000").stdout == "10.9.9.2\n"
    glibc = "import socket; print(socket.create_connection(('server', 7000)).recv(99).decode())"
    assert switch.run("--ip", "10.9.9.3", sys.executable, "-c", glibc).stdout == "10.9.9.3\n"
    unknown = switch.run(talk, "ask", "nothing.appswitch.local", "7000", check=False)
    assert "does not resolve" in unknown.stderr


@pytest.mark.program("musl-gcc")
def test_a_musl_client_without_a_namespace(switch: Switch, talk: str) -> None:
    switch.spawn("--name", "server", "--no-netns", talk, "serve", "7000")
    switch.wait_for("server:7000")
    assert (
        switch.run("--name", "me", "--ip", "10.9.9.2", "--no-netns", talk, "ask", "server", "7000").stdout
        == "10.9.9.2\n"
    )
