"""The plant's GPU side: training and engines; no Flower; runs on Python 3.8."""
