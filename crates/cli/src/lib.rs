//! The tenantry command: server, demo and clients of the admin API.
