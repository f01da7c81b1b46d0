"""Federated linear discriminant analysis: one exchange of exact sums gives a classifier in closed form.

Plants answer counts, sums and second moments of feature vectors as whole numbers (``statistics``, ``wire``);
headquarters adds them up, checks them (``checks``) and solves for the head (``analysis``); plants score a few
candidates on held-out pictures, in whole numbers too (``scores``, ``selection``). No torch here.
"""
