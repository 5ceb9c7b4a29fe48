"""Several files in one: which value counts, and where it is from."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from appswitch.compose.document import Document
from appswitch.compose.merge import merged
from appswitch.compose.project import Check
from appswitch.errors import AppSwitchError
from tests.compose.files import meant


def both(below: str, above: str) -> Document:
    return merged(Document("a.yaml", below, {}), Document("b.yaml", above, {}))


def web(below: str, above: str) -> Any:
    """The service web of two files that say this of it."""
    return both(f"services:\n  web: {below}", f"services:\n  web: {above}").data["services"]["web"]


@pytest.mark.parametrize(
    ("below", "above", "together"),
    [
        ("{command: a, user: x}", "{command: b}", {"command": "b", "user": "x"}),
        ("{command: [a, b]}", "{command: [c]}", {"command": ["c"]}),
        ("{command: a}", "{scale: 2}", {"command": "a", "scale": 2}),
        ("{command: a}", "{command: }", {"command": "a"}),
        ("{command: }", "{command: a}", {"command": "a"}),
        ("{environment: {A: 1, B: 2}}", "{environment: {B: 3, C: 4}}", {"environment": {"A": "1", "B": "3", "C": "4"}}),
        ("{environment: [A=1, B=2]}", "{environment: {B: 3}}", {"environment": {"A": "1", "B": "3"}}),
        ("{environment: {A: 1}}", "{environment: [A, B=x=y]}", {"environment": {"A": None, "B": "x=y"}}),
        ("{environment: {A: 1}}", "{environment: {A: }}", {"environment": {"A": None}}),
        ("{environment: {A: 1}}", "{environment: }", {"environment": {"A": "1"}}),
        ("{labels: [a=1]}", "{labels: [a=2, b=3]}", {"labels": {"a": "2", "b": "3"}}),
        ("{env_file: x}", "{env_file: y}", {"env_file": ["x", "y"]}),
        ("{env_file: [x, y]}", "{env_file: [{path: x, required: false}]}",
         {"env_file": [{"path": "x", "required": False}, "y"]}),
        ("{expose: [80, 81]}", "{expose: [\"81\", 82]}", {"expose": [80, "81", 82]}),
        ("{ports: [\"8080:80\"]}", "{ports: [\"8081:80\", \"8080:80/tcp\"]}", {"ports": ["8080:80/tcp", "8081:80"]}),
        ("{ports: [\"8080:80\"]}", "{ports: [{target: 80, published: 8080}]}",
         {"ports": [{"target": 80, "published": 8080}]}),
        ("{profiles: [a, b]}", "{profiles: [b, c]}", {"profiles": ["a", "b", "c"]}),
        ("{healthcheck: {test: [CMD, a], interval: 5s}}", "{healthcheck: {test: [CMD, b, c]}}",
         {"healthcheck": {"test": ["CMD", "b", "c"], "interval": "5s"}}),
        ("{depends_on: [a]}", "{depends_on: {b: {condition: service_healthy}}}",
         {"depends_on": {"a": {"condition": "service_started", "required": True},
                         "b": {"condition": "service_healthy"}}}),
        ("{depends_on: {a: {condition: service_healthy}}}", "{depends_on: {a: {required: false}}}",
         {"depends_on": {"a": {"condition": "service_healthy", "required": False}}}),
        ("{x-appswitch: {ip: 10.0.0.1, tags: [grp=a]}}", "{x-appswitch: {tags: [grp=b], node: n}}",
         {"x-appswitch": {"ip": "10.0.0.1", "tags": ["grp=a", "grp=b"], "node": "n"}}),
        ("{x-appswitch: {tags: {a: 1, b: 2}}}", "{x-appswitch: {tags: {b: 3}}}",
         {"x-appswitch": {"tags": {"a": 1, "b": 3}}}),
        ("{user: [what]}", "{user: {}}", {"user": {}}),
    ],
)  # fmt: skip
def test_of_a_service(below: str, above: str, together: object) -> None:
    assert web(below, above) == together


def test_services_of_both_and_the_later_name() -> None:
    made = both(
        "name: a\nservices: {web: {command: x}}", "name: b\nservices: {db: {command: y}}\nx-appswitch: {egress: true}"
    )
    assert made.data == {
        "name": "b", "services": {"web": {"command": "x"}, "db": {"command": "y"}}, "x-appswitch": {"egress": True}
    }  # fmt: skip


def test_a_service_called_as_a_key_is_a_service() -> None:
    made = both("services: {command: {user: a}}", "services: {command: {command: b}}")
    assert made.data == {"services": {"command": {"user": "a", "command": "b"}}}


def test_what_the_whole_means() -> None:
    project = meant(both(
        "services:\n  web: {command: serve, healthcheck: {test: old, retries: 5}, scale: 2}",
        "services:\n  web:\n    healthcheck: {test: [CMD, ask]}\n    scale: 3",
    ))  # fmt: skip
    assert project.services["web"].health == Check(("ask",), retries=5)
    assert project.services["web"].scale == 3


@pytest.mark.parametrize(
    ("below", "above", "place"),
    [
        ("services:\n  web:\n    comand: x", "services:\n  web:\n    command: x", "a.yaml:3: services.web.comand"),
        ("services:\n  web:\n    command: x", "services:\n  web:\n    scale: -1", "b.yaml:3: services.web.scale"),
        ("services:\n  web:\n    command: x\n    expose: [1]", "services:\n  web:\n    expose:\n      - 2\n      - zzz",
         "b.yaml:5: services.web.expose.2"),
        ("services:\n  web:\n    command: x\n    environment:\n      - =1", "services:\n  web:\n    environment: [A=1]",
         "b.yaml:3: services.web.environment"),
        ("services:\n  web:\n    user: x", "services:\n  db:\n    command: x", "a.yaml:2: services.web"),
    ],
)  # fmt: skip
def test_an_error_names_the_file_that_has_it(below: str, above: str, place: str) -> None:
    with pytest.raises(AppSwitchError) as caught:
        meant(both(below, above))
    assert caught.value.message.startswith(place)


def test_warnings_of_both() -> None:
    assert both("a: $X", "b: $Y").warnings == [
        "a.yaml:1: a: X isn't set: nothing stands in its place", "b.yaml:1: b: Y isn't set: nothing stands in its place"
    ]  # fmt: skip


texts = st.sampled_from(["x", "y", "A=1", "B=2"])
values = st.recursive(
    st.none() | texts, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
keys = st.sampled_from(
    ["command", "environment", "depends_on", "env_file", "ports", "expose", "labels", "healthcheck", "x"]
)
files = st.fixed_dictionaries(
    {"services": st.dictionaries(texts, st.dictionaries(keys, values, max_size=3), max_size=3)}
)


@given(files, files)
def test_whatever_stands_there_is_merged(below: object, above: object) -> None:
    made = both(yaml.safe_dump(below), yaml.safe_dump(above))
    assert set(made.data["services"]) == set(below["services"]) | set(above["services"])  # type: ignore[index]
    assert both(yaml.safe_dump(below), "").data == below
    assert both("", yaml.safe_dump(above)).data == above


@given(files)
def test_every_value_has_its_place(below: dict[str, Any]) -> None:
    made = both(yaml.safe_dump(below), yaml.safe_dump({"services": {"x": {"x": 1}}}))

    def check(value: object, path: tuple[str | int, ...]) -> None:
        assert path in made.places
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, each in children:
            check(each, (*path, key))

    for name, service in made.data["services"].items():
        check(service, ("services", name))
