"""Data sets of captioned images: readers, storage, demo, images, batches."""
