"""`appswitch external`: servers outside that have a name and a virtual IP of ours."""

from __future__ import annotations

import click

from appswitch.cli import candidates
from appswitch.cli.options import ask, socket_option
from appswitch.cli.show import listing, show


@click.group()
def external() -> None:
    """Servers outside that apps reach by a name of ours, through gateways."""


@external.command()
@click.argument("name")
@click.argument("backends", metavar="PORT:HOST:PORT...", nargs=-1, required=True)
@click.option("--ip", metavar="ADDR", help="Its virtual IP; by default one is derived from the name.")
@click.option("--tag", "tags", metavar="K=V", multiple=True, help="A tag, as of an app.")
@socket_option
def add(name: str, backends: tuple[str, ...], ip: str | None, tags: tuple[str, ...], socket: str | None) -> None:
    """Register a server outside as NAME: connections to PORT of it go to the backend HOST:PORT.

    HOST is an address, or a name that gateways look up. Several backends of one port take turns; those that don't
    answer are passed over. It is known on all hosts, and kept by this one until `external rm`.
    """
    rows = ask(socket, "external-add", name=name, backends=backends, ip=ip, tags=tags)
    click.echo(f"{rows[0]['name']} is {rows[0]['ip']}")


@external.command()
@click.argument("name", shell_complete=candidates.externals)
@socket_option
def rm(name: str, socket: str | None) -> None:
    """Forget the external server NAME, which was registered on this host. Its connections go on."""
    ask(socket, "external-rm", name=name)


@external.command("list")
@listing
def list_(socket: str | None, output: str, no_headers: bool) -> None:
    """List the external servers, a backend a line, and whether gateways reach it."""
    rows = ask(socket, "externals")
    if output != "json":
        for row in rows:
            row["health"] = [f"{each['gateway']}:{each['state']}" for each in row["health"]]
    show("externals", rows, output, no_headers)
