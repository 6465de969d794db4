"""Vultr: client (I/O), parsers (pure), vocabulary (its words in ours), collector and bill (where they meet)."""
