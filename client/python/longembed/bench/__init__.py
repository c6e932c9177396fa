"""longembed-bench: runs the LongEmbed benchmark, or any retrieval set of long documents, against a running server."""
