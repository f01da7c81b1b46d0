"""Everything of the node that knows Flower: the Fleet API's connection, its messages and the ClientApp.

Flower 1.30 is used beyond its public packages here, so a move to another release is a change of this package; a
test names each private part that is used.
"""
