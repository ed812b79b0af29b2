"""The systems that can be trained, each with a Task and the Job of its runs."""
