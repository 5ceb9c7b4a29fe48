"""`python -m tests.soak [--minutes M] [--seed N]`: a mixed load with faults, for as long as asked (world.py)."""

from __future__ import annotations

import secrets
import sys
import threading
import time

import click

from tests.hosts import network
from tests.soak.world import Soak, ViolationError, say

EVERY = 30.0  # seconds, in which it says how it is


@click.command()
@click.option("--minutes", type=float, default=10, show_default=True)
@click.option("--seed", type=int, help="What is random follows from it; the order of what happens at once doesn't.")
def main(minutes: float, seed: int | None) -> None:
    """A mixed load with faults; ends with 0 when nothing was lost or left over. As root."""
    seed = secrets.randbelow(1 << 31) if seed is None else seed
    print(f"seed {seed}", flush=True)
    began, ended = time.monotonic(), threading.Event()
    with network() as net:
        soak = Soak(net, seed)

        def tell() -> None:
            while not ended.wait(EVERY):
                print(say(soak, began), flush=True)

        teller = threading.Thread(target=tell)
        teller.start()
        try:
            soak.run(60 * minutes)
        except ViolationError as violation:
            sys.exit(f"{say(soak, began)}\n{violation}\n" + "\n".join(host.logs() for host in net.hosts))
        finally:
            ended.set()
            teller.join()
        print(say(soak, began))


main()
