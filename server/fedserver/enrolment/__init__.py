"""Enrolment: certificate authority, join tokens, the registry of plants, and the gRPC service that admits them."""
