"""One module per layout of caption files, each with `recognise` and `read`; nothing is judged here.

What a reader finds it hands over as a Reading; what of it stands is decided in data.py, for all
layouts alike.
"""
