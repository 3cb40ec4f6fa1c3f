"""What is on the disk: songs in, stems out, partial files, encodings, names, tags, the cache."""
