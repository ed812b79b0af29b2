"""A module for each command of `captioner`, with `add_arguments(parser)`, `run(arguments)` and an
EXAMPLE; what a command does lives in the modules it calls.
"""
