"""The exporter's exception whose message is shown to users."""


class ExportError(Exception):
    """An export failed. The message is one sentence with the problem and the remedy."""
