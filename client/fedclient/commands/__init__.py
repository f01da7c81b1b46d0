"""The commands of `fedclient`: arguments and printing only. No torch and no onnxruntime; the worker has them."""
