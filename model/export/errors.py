"""The one exception of the exporter that is meant for people."""


class ExportError(Exception):
    """An export that fails. Its text is one sentence that names the problem and the remedy."""
