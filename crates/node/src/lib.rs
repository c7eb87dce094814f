//! One machine's data plane: scheduler, inflight requests, workers.
