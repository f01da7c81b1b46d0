"""Model registry: published versions, base models, and what plants reported of both."""
