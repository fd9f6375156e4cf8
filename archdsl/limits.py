"""The limits that keep hostile input cheap: the one place they are stated.

They lie far above any network of this family and are checked with Python integers, before
anything is built. A value beyond one is an error that names the limit.
"""

from __future__ import annotations

MAX_TEXT = 1 << 20
"""Characters of a text."""

MAX_TOKENS = 1 << 16
"""Words, signs and spaces between them of a text."""

MAX_SKIPPED = 1 << 12
"""Words of a text that are skipped since they fit nowhere."""

MAX_WORD = 1 << 10
"""Characters of one block string or word."""

MAX_NESTING = 32
"""Arrays and objects inside each other, in the notations of other libraries."""

MAX_PROFILES_TEXT = 1 << 18
"""Characters of a file of device profiles."""

MAX_RESULTS = 1 << 25
"""Bytes of a file of measured times: ONNX Runtime's profiles have an event for every operator."""

MAX_MEASURED = 1_024
"""Networks that were measured together."""

MAX_ERRORS = 100
"""Errors of a text that are shown: with more it is something else than a text with slips."""

MAX_STATEMENTS = 256
"""Variants of a file, and `published` statements, those of all variants counted."""

MAX_KERNEL = 31
MAX_STRIDE = 9
MAX_REPEATS = 1_000
MAX_BLOCKS = 4_096
"""Blocks of a network, repeats counted."""

MAX_CHANNELS = 1 << 20
MAX_SIDE = 1 << 15
"""Pixels of an image side."""

MAX_EXPANSION = 128.0
MAX_HEADS = 1_024
MAX_CLASSES = 1 << 24
MAX_SCALE = 64.0
"""Width and depth multipliers."""

MAX_HEADER = 1 << 25
"""Bytes of a weight file's table of tensors: more than 100,000 tensors have."""

MAX_TENSORS = 1 << 17
"""Tensors of a checkpoint, and groups of its HDF5 file."""

MAX_PIXELS = 1 << 26
"""Pixels of a photo."""

MAX_IMAGE_BYTES = 1 << 32
"""Bytes of a set of images, as float32."""
