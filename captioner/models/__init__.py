"""What the captioning models are made of; captioning.py, above, is what others ask for."""
