"""Data sets of captioned images: readers, storage, the demo, image loading, checks, batches."""
