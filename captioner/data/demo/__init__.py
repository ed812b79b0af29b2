"""The generated demo data set: coloured shapes, their captions and boxes."""
