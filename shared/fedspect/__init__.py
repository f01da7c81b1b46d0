"""What both sides of a federation mean by the same word; knows no Flower and runs on Python 3.8."""
