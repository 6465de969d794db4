"""Amazon Web Services: client (I/O), parsers (decoded answers to rows), vocabulary, the collector that joins them."""
