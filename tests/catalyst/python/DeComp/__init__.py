"""What catalyst needs of pyDeComp to unpack an uncompressed seed; it is not on PyPI under its own name."""
