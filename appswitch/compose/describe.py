"""A project as `config` shows it: a file that means the same, with nothing left to be looked up."""

from __future__ import annotations

import os
import signal

from appswitch.compose.project import Check, Endpoint, Listens, Project, Service


def described(project: Project) -> dict[str, object]:
    """The values of such a file."""
    services = {name: _described(each) for name, each in project.services.items()}
    ours: dict[str, object] = {"policy": _escaped(str(project.policy))} if project.policy else {}
    ours |= {"egress": True} if project.egress else {}
    return {"name": project.name, "services": services, **({"x-appswitch": ours} if ours else {})}


def _described(service: Service) -> dict[str, object]:
    extension: dict[str, object] = {"ip": service.ip, "tags": list(service.tags), "node": service.node}
    extension |= {"netns": service.netns and None, "tcp": service.tcp or None, "exclusive": service.exclusive or None}
    extension |= {"bypass": list(service.bypasses)}
    extension = {key: value for key, value in extension.items() if value not in (None, [])}
    dependencies = {
        each.service: {
            "condition": each.condition,
            "required": each.required,
            **({"restart": True} if each.restart else {}),
        }
        for each in service.dependencies
    }
    restart = service.restart
    most = f":{restart.most}" if restart.most else ""
    policy = "always" if restart.after_success else f"on-failure{most}" if restart.after_failure else "no"
    every: dict[str, object] = {
        "command": [_escaped(each) for each in service.command],
        "environment": {key: _escaped(value) for key, value in service.environment.items()},
        "working_dir": _escaped(os.fspath(service.directory)),
        "user": service.user,
        "depends_on": dependencies,
        "healthcheck": _described_health(service.health),
        "expose": sorted(map(_shown, service.health.endpoints)) if isinstance(service.health, Listens) else [],
        "restart": policy,
        "stop_signal": signal.Signals(service.stop_signal).name,
        "stop_grace_period": f"{service.grace:g}s",
        "scale": service.scale,
        "profiles": list(service.profiles),
        "ports": [_published(each) for each in service.published],
        "labels": {key: _escaped(value) for key, value in service.labels.items()},
        "x-appswitch": extension,
    }
    return {key: value for key, value in every.items() if value is not None and value not in ([], {})}


def _described_health(health: Check | Listens | None) -> dict[str, object] | None:
    if health is None:
        return {"disable": True}
    if isinstance(health, Listens):
        return None
    times = {each: f"{getattr(health, each):g}s" for each in ("interval", "timeout", "start_period", "start_interval")}
    return {"test": ["CMD", *map(_escaped, health.command)], **times, "retries": health.retries}


def _shown(endpoint: Endpoint) -> str:
    port, protocol = endpoint
    return str(port) if protocol == "tcp" else f"{port}/{protocol}"


def _published(expose: str) -> str:
    """As a file has it: the gateway's port comes first there, in `spawn --expose` last."""
    return ":".join(reversed(expose.split(":")))


def _escaped(text: str) -> str:
    return text.replace("$", "$$")
