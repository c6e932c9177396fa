"""The one exception of the exporter that is meant for people."""


class ExportError(Exception):
    """An export that cannot go on. Its text is one sentence that says what is wrong and what to do."""
