"""Inference server: the Open Inference Protocol over gRPC, dynamic batching, model leases, memory budget."""
