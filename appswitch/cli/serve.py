"""`appswitch serve`."""

from __future__ import annotations

import os
import socket as sockets
from pathlib import Path

import click

from appswitch import server
from appswitch.cli.options import socket_option
from appswitch.cluster import read_settings
from appswitch.host import systemd
from appswitch.host.paths import trap_socket


@click.command()
@click.option("--node", metavar="NAME", help="This host's name among the nodes; by default its host name.")
@click.option("--bind", metavar="ADDR[:PORT]",
              help="Be one of several hosts: our address for the others; by default the one that leads to --join. "
                   "PORT (7946) is Serf's, TCP and UDP; the next one is for connections.")  # fmt: skip
@click.option("--join", metavar="HOST[:PORT]", multiple=True, help="A host that is there already; one is enough.")
@click.option("--gateway", is_flag=True, help="Let apps out to addresses that no app owns, and clients in to what they "
                                               "expose.")  # fmt: skip
@click.option("--gateway-bind", metavar="ADDR", multiple=True,
              help="Let clients in at this address of the host only; by default at all.")  # fmt: skip
@click.option("--gateway-limit", "gateway_limits", metavar="LIMIT", multiple=True,
              help="What to let in: connections=N, per-source=N, rate=N/s; first-byte=SECONDS for a client to say "
                   "something, idle=SECONDS for a relayed connection.")  # fmt: skip
@click.option("--egress", type=click.Choice(["allow", "deny"]), default="allow", show_default=True,
              help="Whether apps may leave for where no rule of the policy says it.")  # fmt: skip
@click.option("--policy", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="Who may reach whom (TOML); SIGHUP reads it again.")  # fmt: skip
@click.option("--key-file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
              help="The key that all hosts share; `serf keygen` makes one.")  # fmt: skip
@click.option("--serf", metavar="PROGRAM", default="serf", show_default=True, help="The gossip engine.")
@socket_option
@click.option("--state-dir", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
              help="Where to keep what is ours; by default beside the trap socket.")  # fmt: skip
@click.option("--containers", metavar="DIR", type=click.Path(path_type=Path, file_okay=False),
              help="Put what containers need into DIR, for them to have it mounted; APPSWITCH_NAME and the like say "
                   "who they are.")  # fmt: skip
@click.option("--http", metavar="ADDR:PORT",
              help="Serve the map, metrics and health there, read-only: on 127.0.0.1 to all of this host, elsewhere to "
                   "who has the token.")  # fmt: skip
@click.option("--dns-upstream", metavar="ADDR", multiple=True,
              help="A name server for names that no app has; by default a gateway's, else those of "
                   "/etc/resolv.conf.")  # fmt: skip
@click.option("--take-over", is_flag=True, help="Take the place of the trap handler that serves here, if one does, "
                                                "without a gap; give the same options.")  # fmt: skip
@click.option("--exit-when-idle", is_flag=True, hidden=True)
@click.option("--ready-fd", type=int, hidden=True)
def serve(
    node: str | None,
    bind: str | None,
    join: tuple[str, ...],
    key_file: Path | None,
    serf: str,
    gateway: bool,
    gateway_bind: tuple[str, ...],
    gateway_limits: tuple[str, ...],
    egress: str,
    policy: Path | None,
    socket: str | None,
    state_dir: Path | None,
    containers: Path | None,
    http: str | None,
    dns_upstream: tuple[str, ...],
    take_over: bool,
    exit_when_idle: bool,
    ready_fd: int | None,
) -> None:
    """Run the trap handler of this host, in the foreground."""
    server.log_to_stderr()
    manager, sockets_given = systemd.take(os.environ)
    server.run(
        server.Settings(
            trap=trap_socket(socket),
            node=node or sockets.gethostname(),
            cluster=read_settings(bind, join, key_file, serf),
            gateway=gateway,
            gateway_bind=gateway_bind,
            gateway_limits=gateway_limits,
            policy=policy.absolute() if policy else None,
            egress=egress == "allow",
            state_dir=state_dir,
            containers=containers.absolute() if containers else None,
            http=http,
            dns_upstream=dns_upstream,
            exit_when_idle=exit_when_idle,
            take_over=take_over,
            ready_fd=ready_fd,
            manager=manager,
            sockets=tuple(sockets_given),
        )
    )
