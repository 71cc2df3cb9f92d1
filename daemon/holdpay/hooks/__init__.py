"""Hooks: programs and URLs that are told what happens, at least once and in order."""
