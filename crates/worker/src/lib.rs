//! The worker process: wire in, engine, wire out.
