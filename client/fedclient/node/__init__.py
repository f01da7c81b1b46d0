"""The plant's Flower side; never imports torch and runs only installed code."""
