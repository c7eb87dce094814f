//! Settings nothing becomes of, and why.

/// By path, in order.
const REASONS: &[(&str, &str)] = &[
    ("batch_input", "inputs that tell the shape of a batch are not made; the client sends every input"),
    ("batch_output", "answers are divided by rows only"),
    ("cc_model_filenames", "there are no files by the kind of a GPU"),
    ("dynamic_batching.default_priority_level", "`priority` orders a tenant's own requests; tenants have shares"),
    (
        "dynamic_batching.default_queue_policy",
        "bounds of waiting are limits of the tenant (`tenantry tenant limits`) and `model deploy --default-timeout`",
    ),
    ("dynamic_batching.preferred_batch_size", "registration measures which batch is best, up to max_batch"),
    ("dynamic_batching.preserve_ordering", "answers go out as they are ready"),
    ("dynamic_batching.priority_levels", "`priority` orders a tenant's own requests; tenants have shares"),
    (
        "dynamic_batching.priority_queue_policy",
        "bounds of waiting are limits of the tenant (`tenantry tenant limits`) and `model deploy --default-timeout`",
    ),
    ("input.allow_ragged_batch", "only requests of one shape are joined"),
    ("input.format", "the extents say it"),
    ("input.is_shape_tensor", "the model's file says it"),
    ("input.optional", "every input is sent"),
    ("instance_group.gpus", "copies run on processors"),
    ("instance_group.host_policy", "the server pins its slots itself"),
    ("instance_group.kind", "copies run on processors"),
    ("instance_group.name", "copies have no names"),
    ("instance_group.passive", "copies are loaded on demand"),
    ("instance_group.profile", "a setting of another engine"),
    ("instance_group.rate_limiter", "tenants have shares of device time (`tenantry tenant limits`)"),
    ("instance_group.secondary_devices", "a setting of another engine"),
    ("model_metrics", "every model has the same metrics"),
    ("model_operations", "no libraries of operators are loaded into workers"),
    ("model_repository_agents", "models come through the admin API only"),
    ("model_transaction_policy", "a request has one answer"),
    ("optimization.cuda", "runs are on processors"),
    ("optimization.eager_batching", "batches are formed when a slot is free"),
    ("optimization.execution_accelerators", "runs are on processors, by ONNX Runtime's own kernels"),
    ("optimization.gather_kernel_buffer_threshold", "data is copied once, into memory the worker shares"),
    ("optimization.input_pinned_memory", "data is copied once, into memory the worker shares"),
    ("optimization.output_pinned_memory", "data is copied once, into memory the worker shares"),
    ("optimization.priority", "tenants have shares"),
    ("output.is_shape_tensor", "the model's file says it"),
    ("runtime", "only ONNX Runtime serves models"),
    ("sequence_batching.control_input", "nothing is added to a request; the client sends every input"),
    ("sequence_batching.direct", "requests of one sequence are served in the order they came"),
    ("sequence_batching.iterative_sequence", "a request has one answer"),
    (
        "sequence_batching.max_sequence_idle_microseconds",
        "`limits.sequence_idle` in the server's configuration says it",
    ),
    ("sequence_batching.oldest", "requests of one sequence are served in the order they came"),
];

/// Why nothing becomes of the setting at `path`, if that is known.
pub(super) fn reason(path: &str) -> Option<&'static str> {
    let position = REASONS.binary_search_by(|(known, _)| (*known).cmp(path)).ok()?;
    REASONS.get(position).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_so_that_it_can_be_searched() {
        assert!(REASONS.is_sorted_by(|one, other| one.0 < other.0));
        assert!(REASONS.iter().all(|(path, _)| reason(path).is_some()));
        assert_eq!(reason("no_such_setting"), None);
    }
}
