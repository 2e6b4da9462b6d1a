"""Making servers one replica set."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from pymongo.errors import OperationFailure, PyMongoError

from .supervisor import POLL_SECONDS, MongodClient, Supervisor

_NOT_YET_INITIALIZED = 94


def form_set(
    supervisor: Supervisor,
    name: str,
    hosts: list[str],
    clients: Sequence[MongodClient],
    deadline: float,
) -> None:
    """Make the members one replica set and wait until it has its primary and secondaries."""
    while True:
        try:
            _configure(clients[0], name, hosts)
            break
        except PyMongoError as error:
            # It refuses both commands until it has read the configuration it has stored.
            supervisor.check(0, deadline, f"did not take its replica set configuration ({error})")
        time.sleep(POLL_SECONDS)
    nominated = False
    while not _is_settled(answers := _hello(clients)):
        if not nominated and _may_elect(answers):
            nominated = True
            # Left alone they wait out the election timeout first. Should this member lack
            # writes of the others, it is not elected, and they do just that.
            with contextlib.suppress(PyMongoError):
                clients[0].admin.command("replSetStepUp")
        for index in range(len(hosts)):
            supervisor.check(index, deadline, "did not become primary or secondary")
        time.sleep(POLL_SECONDS)


def _configure(client: MongodClient, name: str, hosts: list[str]) -> None:
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        members = [{"_id": index, "host": host} for index, host in enumerate(hosts)]
        settings = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
        config = {"_id": name, "members": members, "settings": settings}
        client.admin.command("replSetInitiate", config)
        return
    if [member["host"] for member in config["members"]] != hosts:
        for member, host in zip(config["members"], hosts, strict=True):
            member["host"] = host
        config["version"] += 1
        # By force: no member finds itself in the old one, so none is primary and could agree.
        client.admin.command("replSetReconfig", config, force=True)


def _hello(clients: Sequence[MongodClient]) -> list[dict[str, Any]]:
    with contextlib.suppress(PyMongoError):
        return [client.admin.command("hello") for client in clients]
    return []


def _is_settled(answers: Sequence[dict[str, Any]]) -> bool:
    primaries = sum(answer["isWritablePrimary"] for answer in answers)
    secondaries = sum(answer["secondary"] for answer in answers)
    return primaries == 1 and secondaries == len(answers) - 1


def _may_elect(answers: Sequence[dict[str, Any]]) -> bool:
    if not answers or any(answer["isWritablePrimary"] for answer in answers):
        return False
    return answers[0]["secondary"] and all("setName" in answer for answer in answers)
