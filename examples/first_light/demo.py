"""Two web servers that both listen on port 80, and a client that finds them by name. Run it with `./dev demo`.

Everything here is an ordinary program that knows nothing of AppSwitch. It takes a few seconds, needs no root, and
leaves nothing behind. The exit status is 0 when everything was seen as told.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

APPSWITCH = [sys.executable, "-m", "appswitch"]
PATIENCE = 20.0  # seconds that any step may take

NGINX = """
daemon off; master_process off; pid {home}/pid; error_log {home}/error.log;
events {{}}
http {{
  access_log off; client_body_temp_path {home}/1; proxy_temp_path {home}/2; fastcgi_temp_path {home}/3;
  uwsgi_temp_path {home}/4; scgi_temp_path {home}/5;
  server {{ listen 80; location / {{ return 200 "{text}\\n"; }} }}
}}
"""

# The client: one program that lives through it all. It asks once for each line that it reads.
CURL = "while read -r line; do curl -sS --max-time 10 http://web/ || echo failed; done"
URLLIB = """
import sys, urllib.request
for line in sys.stdin:
    try:
        print(urllib.request.urlopen("http://web/", timeout=10).read().decode().strip(), flush=True)
    except OSError as error:
        print("failed:", error, flush=True)
"""


class Demo:
    """What runs, under a trap handler of its own."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self.stack = stack
        self.log = stack.enter_context((home / "log").open("a+"))
        self.environment = {**os.environ, "APPSWITCH_SOCKET": str(home / "trap.sock")}
        self.isolation: list[str] = []

    def serve(self) -> None:
        """Starts the trap handler and waits until it serves."""
        ready, write_end = os.pipe()
        self._start(["serve", "--ready-fd", str(write_end)], pass_fds=[write_end])
        os.close(write_end)
        said = os.read(ready, 16)
        os.close(ready)
        expect(bool(said), "the trap handler starts")

    def look_for_namespaces(self) -> None:
        """Where the kernel forbids namespaces, everything here works without, too."""
        tried = subprocess.run(
            [*APPSWITCH, "spawn", "true"], env=self.environment, check=False, capture_output=True, text=True
        )
        if tried.returncode:
            print(f"  ({tried.stderr.strip().splitlines()[0]}: so we go on with --no-netns.)")
            self.isolation = ["--no-netns"]

    def web_server(self, number: int) -> subprocess.Popen[str]:
        """A real web server on port 80 that says which one it is."""
        home = self.home / f"web-{number}"
        home.mkdir()
        text = f"Hello from web server {number}"
        if shutil.which("nginx"):
            (home / "nginx.conf").write_text(NGINX.format(home=home, text=text))
            command = ["nginx", "-e", str(home / "error.log"), "-c", str(home / "nginx.conf")]
        else:
            (home / "index.html").write_text(text + "\n")
            command = [sys.executable, "-m", "http.server", "80", "--directory", str(home)]
        return self._start(["spawn", "--name", "web", *self.isolation, "--", *command], shown=True)

    def client(self) -> Client:
        """Curl in a loop, waiting for its first line."""
        command = ["sh", "-c", CURL] if shutil.which("curl") else [sys.executable, "-c", URLLIB]
        arguments = ["spawn", "--wait-for", "web:80", *self.isolation, "--", *command]
        process = self._start(arguments, shown=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return Client(process)

    def show(self, *arguments: str) -> str:
        """Runs `appswitch ARGUMENTS` to its end, and shows what it says."""
        print(f"  $ appswitch {shlex.join(arguments)}", flush=True)
        done = subprocess.run(
            [*APPSWITCH, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True, check=True
        )
        print("".join(f"  {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
        return done.stdout

    def wait_for_servers(self, count: int) -> None:
        """Until so many instances are served, a row of `services` each."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            rows = subprocess.run(
                [*APPSWITCH, "services", "--json"], env=self.environment, stdout=subprocess.PIPE, check=True
            )
            if len(json.loads(rows.stdout)) == count:
                return
        raise Trouble(f"{count} web servers are listed")

    def _start(self, arguments: list[str], shown: bool = False, **options: Any) -> subprocess.Popen[str]:
        if shown:
            print(f"  $ appswitch {shlex.join(arguments).replace(str(self.home), '...')} &", flush=True)
        options = {"stdin": subprocess.DEVNULL, "stdout": self.log, **options}
        process: subprocess.Popen[str] = subprocess.Popen(
            [*APPSWITCH, *arguments], env=self.environment, stderr=self.log, text=True, **options
        )
        self.stack.callback(stop, process)
        return process


class Client:
    """A client that asks when it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, times: int) -> Counter[str]:
        """Asks the name `web`, shows every answer, and counts them."""
        answers: Counter[str] = Counter()
        assert self.process.stdin
        assert self.process.stdout
        for number in range(1, times + 1):
            self.process.stdin.write("ask\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline().strip()
            print(f"    {number:2}  {answer}", flush=True)
            answers[answer] += 1
        return answers


class Trouble(Exception):  # noqa: N818 - what it is
    """Something wasn't as told."""


def tell(text: str) -> None:
    """Prints a paragraph."""
    print(f"\n{text}\n", flush=True)


def expect(true: bool, text: str) -> None:
    """Ends the demo when what it told isn't so."""
    if not true:
        raise Trouble(text)


def stop(process: subprocess.Popen[str]) -> None:
    """Ends a program if it still runs."""
    if process.stdin:
        process.stdin.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def kill_program(wrapper: subprocess.Popen[str]) -> None:
    """Kills the program under a `spawn`, as a crash would; returns once it is dead."""
    (child,) = Path(f"/proc/{wrapper.pid}/task/{wrapper.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    wrapper.wait(PATIENCE)


def run(demo: Demo) -> None:
    """The demo."""
    tell("1. A trap handler, as your own user, and two ordinary web servers. Both are named `web`, both take port 80.")
    demo.serve()
    demo.look_for_namespaces()
    first, _second = demo.web_server(1), demo.web_server(2)
    demo.wait_for_servers(2)
    tell(
        "What you see: neither got an `address already in use`, and neither needed root for port 80. "
        + ("\n" if demo.isolation else "Neither has a network:\neach sits in a network namespace with nothing in it. ")
        + "No bridge, no NAT, no proxy was set up anywhere."
    )
    tell("2. A client, under a spawn of its own, runs `curl http://web/` eight times.")
    client = demo.client()
    answers = client.ask(8)
    expect(len(answers) == 2 and not any("failed" in answer for answer in answers), "both servers answer")
    one, other = answers.values()
    tell(
        f"What you see: one name, two servers: {one} answers from the one, {other} from the other.\n"
        "The client's side picks the server, connection by connection; nothing stands between the two: what curl\n"
        "and the web servers take for TCP is a Unix socket. The trap handler knows who is there:"
    )
    demo.show("resolve", "web")
    print()
    expect(demo.show("services").count("web") == 2, "two services are listed")
    tell("3. Now web server 1 gets a SIGKILL. The same client goes on at once.")
    kill_program(first)
    answers = client.ask(8)
    expect(set(answers) == {"Hello from web server 2"}, "the server that is left answers")
    tell("What you see: eight answers, no failure: the client didn't notice. Web server 1 is off the list:")
    demo.wait_for_servers(1)
    expect(demo.show("services").count("web") == 1, "one service is listed")


@contextmanager
def new_demo() -> Iterator[Demo]:
    """A demo in a directory of its own; everything is ended and removed afterwards, the last started first."""
    with tempfile.TemporaryDirectory(prefix="appswitch-demo-") as home, ExitStack() as stack:
        yield Demo(Path(home), stack)


def main() -> int:
    """Runs the demo; 0 when everything was seen as told."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with new_demo() as demo:
        try:
            run(demo)
        except (Trouble, OSError, subprocess.SubprocessError) as trouble:
            demo.log.seek(0)
            print(f"\nThe demo failed; this should be so, and isn't: {trouble}\n{demo.log.read()}", file=sys.stderr)
            return 1
    print("\nThat was it. Everything is stopped and removed.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
