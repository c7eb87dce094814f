//! Makes worker processes through a small single-threaded spawner.
