"""Inference on the line: verdicts on pictures, from engines, without torch and without Flower.

``python -m fedclient.worker.line`` is a process of its own (``fedclient serve``); node and trainer may die and
come back beside it. It knows only files in the plant's home: which deployment is current, its engines, and
``line/`` with the line's own settings and what it keeps.
"""
