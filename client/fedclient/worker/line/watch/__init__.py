"""Folder watcher: verdicts for the pictures of a watched folder, each exactly once."""
