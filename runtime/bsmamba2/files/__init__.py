"""Files: songs, stems, partial files, encodings, names, tags, and the cache folder."""
