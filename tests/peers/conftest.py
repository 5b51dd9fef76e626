"""How the other libraries are to be set up, before any of them begins to work."""

from __future__ import annotations

import os
import tempfile

# Most of the time would go into compiling convolutions that run once.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["KERAS_BACKEND"] = "jax"
# Keras writes its configuration there, else into the home directory.
_keras = tempfile.TemporaryDirectory()
os.environ["KERAS_HOME"] = _keras.name
