"""What differs between two images: no files, no Kafka. Read `measure` first: it has the terms.

Each public function waits and tries again where the machine has too little memory. An image of 100
million pixels needs more than a gigabyte, which other programs may have just now; the image is as
good as before once there is memory, and must not be set aside for the lack of it.
"""
