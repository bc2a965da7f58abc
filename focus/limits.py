"""How much of each kind of input is read: the one place. Checked against file or header, before memory is spent.

Far above what is real of its kind, and low enough that a damaged or hostile file cannot take the machine down.
"""

from __future__ import annotations

MIB = 1 << 20
GIB = 1 << 30

IMAGE_FILE = GIB
"""Bytes of an image file."""
IMAGE_PIXELS = 120_000_000
"""Pixels of one photo. Decoding takes about 7 bytes a pixel at its peak: 0.8 GB at this limit."""
TABLE_FILE = GIB
"""Bytes of a table of landmarks; those of the 200,000 photos of CelebA take a fifth of it."""
TEXT_FILE = 64 * MIB
"""Bytes of other text and JSON files, and of landmarks and boxes of one photo or mesh."""
BOX_FILE = 64 << 10
"""Bytes of the box of one face; those of the NoW challenge have 300."""
CROPS_FILE = 1024 * GIB
"""Bytes of the file with the crops of a folder of photos, which is never read as a whole."""
SHARD_FILE = 64 * GIB
"""Bytes of a tar file of faces, which is never read as a whole."""
SHARD_FACE = 64 * MIB
"""Bytes of one picture in it."""
LOG_FILE = 4 * GIB
"""Bytes of the log of a run."""
MESH_FILE = 2 * GIB
"""Bytes of a scan or of a predicted mesh."""
MODEL_FILE = 4 * GIB
"""Bytes of a face model, and of all of its arrays in memory."""
LESSON_FILE = 256 * MIB
"""Bytes of what a teacher says of one photo; at 224 pixels they are 0.5 MB."""
WEIGHTS_FILE = 8 * GIB
"""Bytes of a checkpoint or of a file of weights, and of its tensors in memory."""
