//! Frames, descriptors and shared memory between node and worker.
