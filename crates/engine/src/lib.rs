//! ONNX Runtime behind a small interface; runs only inside a worker.
