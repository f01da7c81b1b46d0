"""Headquarters: rounds, aggregation, the registry of models and enrolment."""
