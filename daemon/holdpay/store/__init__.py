"""SQLite through sqlite-utils: migrations, rows ⇄ model, the journal. One write path that proves its own commit."""
