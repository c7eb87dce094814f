//! Who may do what. Roles are policies in the language Cedar (`roles.cedar`, `schema.cedarschema`); a tenant's own roles
//! become policies of the same kind.
//!
//! What a principal may do depends on its roles, on the action, and on what the thing is to its tenant: its own, shared with
//! it, or another's. These are few, so they are asked once, all of them, when a set of roles is met for the first time;
//! what comes out, [`Grants`], answers each call with the test of a bit. Only models that a custom role names are asked for
//! one by one.
//!
//! Nothing here does IO. An error of evaluation denies.
#![forbid(unsafe_code)]

mod grants;
mod policies;

pub use grants::{Grants, Relation};
pub use policies::{Policies, PolicyError};
