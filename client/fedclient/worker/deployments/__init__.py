"""Deployments: which engines the line runs, which it ran before, and who decided that when and why.

``record`` says what a deployment is, ``records`` keeps them, ``pointer`` moves from one to another by a single rename.
"""

from __future__ import annotations

from fedclient.worker.deployments.pointer import Deployments
from fedclient.worker.deployments.record import Deployment, Entry

__all__ = ["Deployment", "Deployments", "Entry"]
