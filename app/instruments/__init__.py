"""What operators see: spans and measurements of what the store does, by OpenTelemetry's API."""
