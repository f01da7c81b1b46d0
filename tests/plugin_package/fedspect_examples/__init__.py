"""Worked examples of Fedspect's plug-ins, one file each."""
