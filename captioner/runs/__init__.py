"""What surrounds one training: its flags, folder and data, what it tells, how to go on."""
