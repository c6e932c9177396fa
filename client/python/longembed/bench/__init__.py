"""longembed-bench: the LongEmbed benchmark, and any retrieval set of long documents, through a running server."""
