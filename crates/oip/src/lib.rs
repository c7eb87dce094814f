//! The Open Inference Protocol v2 codec: bytes in, requests out, and back.
