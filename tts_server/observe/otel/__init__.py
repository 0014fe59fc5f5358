"""Distributed traces: spans of requests, searches and calls for OpenTelemetry. Imported only where they are wanted."""
