"""Where images come from: the mock camera, files, or a directory that a camera fills.

Each of these is an iterator of pictures, and `None` in it means that no picture is there now and
that the next one may take a while. Read `picture.py` first, then `batches.py`. What the analysis
compares an image with is in `previous_images.py`.
"""
