"""Everything of the server that knows Flower: its SuperLink, ServerApp, APIs and strategies.

Flower 1.30 is used beyond its public packages here, so a move to another release is a change of this package; a
test names each private part that is used.
"""
