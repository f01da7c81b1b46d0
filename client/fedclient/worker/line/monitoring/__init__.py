"""Monitoring: telemetry of answers, Prometheus metrics, drift against reference statistics."""
