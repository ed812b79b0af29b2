"""Captions and maps as people see them: figures, animations, notebooks, the report's page."""
