"""Examining who else could read along: on the way to the servers, and at them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, cast

from pymongo.errors import OperationFailure

from .findings import Finding
from .target import Target

_GUARDED = ("keyFile", "clusterAuthMode", "transitionToAuth")


def tls(target: Target) -> Finding:
    """Whether the connections are encrypted, and with whom."""
    # The driver tells nobody else.
    options: Any = target.client.options
    context: Any = getattr(options.pool_options, "_ssl_context", None)
    if context is None:
        if is_on_loopback(target):
            return Finding("tls", "good", "none, and the servers are on loopback")
        return Finding(
            "tls",
            "warning",
            "the connections are not encrypted: whoever is on the way reads every session, and "
            "the password's exchange",
            "Give the servers certificates (net.tls.mode: requireTLS), and write tls=true into "
            "the connection string, with tlsCAFile=... for an authority of your own.",
        )
    if getattr(context, "verify_mode", ssl.CERT_REQUIRED) == ssl.CERT_NONE:
        unchecked = "no certificate is"
    elif not getattr(context, "check_hostname", True):
        unchecked = "the name in a certificate is not"
    else:
        return Finding("tls", "good", "the connections are encrypted, and certificates checked")
    return Finding(
        "tls",
        "warning",
        f"the connections are encrypted, but {unchecked} checked: whoever is on the way can take "
        "the place of a server",
        "Take tlsInsecure, tlsAllowInvalidCertificates and tlsAllowInvalidHostnames out of the "
        "connection string; name an authority of your own with tlsCAFile=...",
    )


def is_on_loopback(target: Target) -> bool:
    """Whether no server is reached over a network."""
    servers = target.client.topology_description.server_descriptions()
    return all(_is_loopback(host) for host, _ in servers)


async def lets_everybody_in(target: Target) -> bool:
    """Whether the server says that it asks nobody who they are, though it knows users."""
    try:
        answer = await target.client.admin.command("getCmdLineOpts")
    except OperationFailure:
        # One that asks lets hardly anybody look, and a hosted one nobody.
        return False
    said: object = answer.get("parsed", {}).get("security", {})
    security: Mapping[str, object] = (
        cast("Mapping[str, object]", said) if isinstance(said, Mapping) else {}
    )
    is_guarded = security.get("authorization") == "enabled"
    arguments = cast("list[object]", answer.get("argv", []))
    return not (
        is_guarded or any(name in security for name in _GUARDED) or "--auth" in map(str, arguments)
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".sock")
