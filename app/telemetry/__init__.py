"""Sessions as traces, sent by the exporters of OpenTelemetry."""
