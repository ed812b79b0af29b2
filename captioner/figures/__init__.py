"""What figures, animations, notebooks and the report are drawn with."""
