"""Two web servers that both listen on port 80, and a client that finds them by name. Run it with `./dev demo`, or

    python -m examples.first_light

Everything here is an ordinary program that knows nothing of AppSwitch. It takes a few seconds, needs no root, and
leaves nothing behind. The exit status is 0 when everything was seen as told.
"""

from __future__ import annotations

import shutil
import signal
import sys
from collections import Counter

from examples.stage import Place, Program, Stage, expect, play, tell

# The client: one program that lives through it all. It asks once for each line that it reads.
CURL = "sh -c 'while read -r line; do curl -sS --max-time 10 http://web/ || echo failed; done'"
URLLIB = """
import sys, urllib.request
for line in sys.stdin:
    try:
        print(urllib.request.urlopen("http://web/", timeout=10).read().decode().strip(), flush=True)
    except OSError as error:
        print("failed:", error, flush=True)
"""


def choose_isolation(here: Place) -> str:
    """Where the kernel forbids namespaces, everything here works without, too."""
    tried = here.run("appswitch spawn true", status=None, quiet=True)
    if "appswitch: " not in tried:
        return ""
    print(f"  ({tried.splitlines()[0]}: so we go on with --no-netns.)")
    return "--no-netns "


def web_server(stage: Stage, number: int) -> str:
    """The command line of a real web server on port 80 that says which one it is."""
    says = f"Hello from web server {number}"
    if shutil.which("nginx", path=stage.path):
        return stage.nginx(f"web-{number}", says=says)
    home = stage.home / f"web-{number}"
    home.mkdir()
    (home / "index.html").write_text(says + "\n")
    return f"python3 -m http.server 80 --directory {home.name}"


def ask(client: Program, times: int) -> Counter[str]:
    """Has it ask the name `web`, shows every answer, and counts them."""
    answers: Counter[str] = Counter()
    assert client.process.stdin
    assert client.process.stdout
    for number in range(1, times + 1):
        client.process.stdin.write("ask\n")
        client.process.stdin.flush()
        answer = client.process.stdout.readline().strip()
        print(f"    {number:2}  {answer}", flush=True)
        answers[answer] += 1
    return answers


def scene(stage: Stage) -> None:
    """The demo."""
    tell("1. A trap handler, as your own user, and two ordinary web servers. Both are named `web`, both take port 80.")
    here = stage.here()
    here.serve()
    isolation = choose_isolation(here)
    first, _second = [here.start(f"appswitch spawn --name web {isolation}-- {web_server(stage, n)}") for n in (1, 2)]
    here.wait_for("web:80", instances=2)
    tell(
        "What you see: neither got an `address already in use`, and neither needed root for port 80. "
        + ("\n" if isolation else "Neither has a network:\neach sits in a network namespace with nothing in it. ")
        + "No bridge, no NAT, no proxy was set up anywhere."
    )
    tell("2. A client, under a spawn of its own, runs `curl http://web/` eight times.")
    (stage.home / "ask.py").write_text(URLLIB)
    command = CURL if shutil.which("curl") else "python3 ask.py"
    client = here.start(f"appswitch spawn --wait-for web:80 {isolation}-- {command}", talks=True)
    answers = ask(client, 8)
    expect(len(answers) == 2 and not any("failed" in answer for answer in answers), "both servers answer")
    one, other = answers.values()
    tell(
        f"What you see: one name, two servers: {one} answers from the one, {other} from the other.\n"
        "The client's side picks the server, connection by connection; nothing stands between the two: what curl\n"
        "and the web servers take for TCP is a Unix socket. The trap handler knows who is there:"
    )
    here.run("appswitch resolve web")
    print()
    expect(here.run("appswitch services").count("web") == 2, "two services are listed")
    tell("3. Now web server 1 gets a SIGKILL. The same client goes on at once.")
    first.end(signal.SIGKILL)
    answers = ask(client, 8)
    expect(set(answers) == {"Hello from web server 2"}, "the server that is left answers")
    tell("What you see: eight answers, no failure: the client didn't notice. Web server 1 is off the list:")
    here.wait_for_instances("web:80", 1)
    expect(here.run("appswitch services").count("web") == 1, "one service is listed")


if __name__ == "__main__":
    sys.exit(play(scene))
