"""The beginning of a run: class statistics of all plants, and the linear discriminant that they make.

``exchange`` asks the plants, ``choice`` solves and chooses by their scores, ``store`` keeps what arrived and what
came of it. After it round 0 of the run is the closed form, and rounds go on from there.
"""
