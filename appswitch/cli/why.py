"""`appswitch why`: what would a connect come to, and why?"""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from appswitch.cli import candidates
from appswitch.cli.options import ask
from appswitch.cli.show import listing, print_table
from appswitch.host.processes import tell

NARROW = ("app", "name", "node", "allowed", "reason")


@click.command()
@click.argument("client", shell_complete=candidates.apps)
@click.argument("dest", metavar="DEST:PORT[/udp]", shell_complete=candidates.services)
@listing
def why(client: str, dest: str, socket: str | None, output: str, no_headers: bool) -> None:
    """Say whether CLIENT may connect to DEST:PORT, which rule decides, and who serves there.

    CLIENT is an app's name, id or IP, or the IP of a client outside; DEST a name or an IP. The exit status is 0 when
    the connect would go through, 1 when it is denied or nothing is to be reached there.
    """
    (answer,) = ask(socket, "why", client=client, dest=dest)
    if output == "json":
        click.echo(json.dumps(answer, indent=2))
    else:
        _print(answer, output, no_headers)
    if answer["others"]:
        others = ", ".join(map(str, answer["others"]))
        tell(
            f"appswitch: this is for app {answer['client_node']}/{answer['client_app']}; {client} is app {others}, too"
        )
    sys.exit(0 if answer["allowed"] else 1)


def _print(answer: dict[str, Any], output: str, no_headers: bool) -> None:
    who = "outside" if answer["client_app"] is None else f"app {answer['client_node']}/{answer['client_app']}"
    client = f"{answer['client_name'] or answer['client_ip']} ({who})"
    dest = f"{answer['dest']} ({answer['ip']})" if answer["dest"] != answer["ip"] else answer["ip"]
    click.echo(f"{answer['verdict']}: {client} -> {dest} port {answer['port']}/{answer['proto']}")
    click.echo(f"rule: {answer['rule'] or '-'}")
    click.echo(f"reason: {answer['reason'] or '-'}")
    candidates = answer["candidates"]
    if candidates:
        print_table(candidates, NARROW if output == "table" else tuple(candidates[0]), no_headers)
