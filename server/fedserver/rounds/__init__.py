"""The round loop: which plants get a task, how long it waits for them, and what becomes of their updates.

Begin reading at ``loop``. A round's updates come and go through ``transport``; nothing here knows Flower.
"""
