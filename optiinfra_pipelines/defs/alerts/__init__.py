"""The sensors that send alerts; see README.md."""
