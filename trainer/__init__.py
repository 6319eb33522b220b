"""The engine: trains, compresses, evaluates and serves models with torch, and knows nothing of the web."""
