"""A whole federation on one machine, synthetic surfaces and comparisons."""
