"""Sending stored sessions to a collector."""

from __future__ import annotations

from opentelemetry.sdk.trace.export import SpanExporter

from ..concurrency.workers import ENDS_A_RUN
from ..database.failures import require_asyncio
from ..errors import SessionStoreError, TransferError, UnknownSessionError
from ..jobs.report import OnProblem, OnProgress, Progress, TransferReport
from ..jobs.trace_export import session_trace
from ..reading.listings import SessionListing
from ..store import BeanieSessionStore
from .sdk_spans import SpanSender


async def send_traces(
    store: BeanieSessionStore,
    exporter: SpanExporter,
    *,
    project_key: str | None = None,
    session_id: str | None = None,
    with_content: bool = False,
    on_progress: OnProgress | None = None,
    on_problem: OnProblem | None = None,
) -> TransferReport:
    """Send sessions as traces, one after another, by an exporter of OpenTelemetry's SDK.

    What is sent again has the same ids, and is equal. The exporter is not shut down.

    Args:
        store: where from; the sessions are those of its tenant.
        exporter: such as ``OTLPSpanExporter(endpoint="http://localhost:4318/v1/traces")``.
        project_key: only the sessions of this project.
        session_id: only sessions of this id.
        with_content: also prompts, answers, arguments and results of tools.
        on_progress: called whenever a part of a session, or all of it, is sent.
        on_problem: called with each session that was left out.

    Raises:
        UnknownSessionError: there is no session of what was asked for.
        TransferError: the exporter did not take what it was given.
        SessionStoreError: the server is away or refuses.
    """
    require_asyncio()
    report = TransferReport()
    progress = Progress(report, on_progress, on_problem)
    async for _ in store.all_sessions(project_key, session_id):
        report.listed += 1
    if not report.listed:
        raise UnknownSessionError(
            f"Tenant {store.tenant} has no sessions of what was asked for; nothing was sent."
        )
    sender = SpanSender(exporter)
    async for listing in store.all_sessions(project_key, session_id):
        try:
            await _send(store, sender, listing, progress, with_content)
        except (*ENDS_A_RUN, TransferError):
            raise
        except SessionStoreError as error:
            progress.problem(str(listing), str(error))
            progress.finished("failed")
        else:
            progress.finished("changed")
    return report


async def _send(
    store: BeanieSessionStore,
    sender: SpanSender,
    listing: SessionListing,
    progress: Progress,
    with_content: bool,
) -> None:
    await store.recorded("export", listing.key())
    async for spans, entries in session_trace(store, listing, with_content=with_content):
        if not await sender.send(spans):
            raise TransferError(
                f"The exporter did not take the spans of {listing}; what was sent before stays "
                "sent. See what it logs, look whether a collector is there and takes traces at "
                "this address, and send again: the ids are the same."
            )
        progress.moved(0, entries)
