"""The pure part: no clock, socket, random source, logger or thread (held by import-linter)."""
