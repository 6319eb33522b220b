"""The engine: trains, compresses, evaluates and serves models with torch, and knows nothing of the web."""

import os

# ONNX Runtime 1.31 begins to collect telemetry as it is imported: nothing of a run leaves the machine
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
