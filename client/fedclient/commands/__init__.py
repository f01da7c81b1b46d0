"""What a plant's engineer types: arguments and printing only. No torch and no onnxruntime; the worker has them."""
