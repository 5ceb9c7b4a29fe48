"""`appswitch spawn`: its options, and all that is said of them. What is plainly right doesn't come here
(cli/starting.py, which has them, too).
"""

from __future__ import annotations

import click

from appswitch.cli import candidates, starting
from appswitch.cli.options import Seconds, socket_option
from appswitch.spawn import Options


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option("--ip", metavar="ADDR", help="The virtual IP, v4 or v6.")
@click.option("--name", metavar="NAME", help="The name; without --ip, an address is derived from it.")
@click.option("--tag", "tags", metavar="K=V", multiple=True, help="A tag; a key may repeat.")
@click.option("--expose", metavar="PORT[:[GATEWAY:]GATEWAY_PORT][/proxy]", multiple=True,
              help="Let clients outside in to PORT, at GATEWAY_PORT (by default one that the gateway chooses) of "
                   "GATEWAY, an address or a node's name (by default all). /proxy: by PROXY protocol v2.")  # fmt: skip
@click.option("--bypass", metavar="CIDR|NAME[:PORT,...]", multiple=True,
              help="Leave what is there to the host's network as it is: a network, an address (127.0.0.1, too) or a "
                   "name outside, which may have * in it; its PORTs, or all.")  # fmt: skip
@click.option("--user", metavar="U", help="Run the program as this user (root only).")
@click.option("--no-netns", is_flag=True, help="Stay in the host's network namespace.")
@click.option("--tcp", is_flag=True, help="Real TCP between programs of one host, too.")
@click.option("--exclusive", is_flag=True, help="No other app may bind the same IP and port.")
@click.option(
    "--wait-for",
    metavar="NAME:PORT",
    multiple=True,
    shell_complete=candidates.services,
    help="Start once this is served; once all are, if several.",
)
@click.option("--wait-timeout", metavar="SECONDS", type=Seconds(),
              help="How long to wait for them, by default without end; then the exit status is 125.")  # fmt: skip
@click.option("--supervised", metavar="PID", type=int, hidden=True)
@click.option("--inside", metavar="PID", type=int, hidden=True)
@socket_option
@click.argument(
    "command",
    metavar="[--] CMD ARG...",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=candidates.command,
)
def spawn(
    ip: str | None,
    name: str | None,
    tags: tuple[str, ...],
    expose: tuple[str, ...],
    bypass: tuple[str, ...],
    user: str | None,
    no_netns: bool,
    tcp: bool,
    exclusive: bool,
    wait_for: tuple[str, ...],
    wait_timeout: float | None,
    supervised: int | None,
    inside: int | None,
    socket: str | None,
    command: tuple[str, ...],
) -> None:
    """Run a program with an identity of its own.

    Ends as the program ends: its exit status, or 128+n on signal n; 125: our failure, 126: not executable, 127: not
    found.
    """
    starting.start(
        Options(
            list(command),
            ip=ip,
            name=name,
            tags=list(tags),
            user=user,
            netns=not no_netns,
            exclusive=exclusive,
            tcp=tcp,
            exposes=list(expose),
            bypasses=list(bypass),
            wait_for=list(wait_for),
            wait_timeout=wait_timeout,
            socket=socket,
            supervised=supervised,
            inside=inside,
        )
    )
