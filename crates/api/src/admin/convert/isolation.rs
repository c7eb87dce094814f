//! Levels of isolation between the server's values and the JSON of the API.

use tenantry_server::admin as values;
use tenantry_types::Level;

use crate::admin::types;

impl From<types::IsolationLevel> for Level {
    fn from(level: types::IsolationLevel) -> Self {
        match level {
            types::IsolationLevel::None => Self::None,
            types::IsolationLevel::Confined => Self::Confined,
            types::IsolationLevel::Isolated => Self::Isolated,
            types::IsolationLevel::Full => Self::Full,
        }
    }
}

impl From<Level> for types::IsolationLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::None => Self::None,
            Level::Confined => Self::Confined,
            Level::Isolated => Self::Isolated,
            Level::Full => Self::Full,
        }
    }
}

impl From<values::TenantIsolation> for types::TenantIsolation {
    fn from(isolation: values::TenantIsolation) -> Self {
        Self {
            in_force: isolation.in_force.into(),
            minimum: isolation.minimum.into(),
            platform_minimum: isolation.platform_minimum.into(),
            own_minimum: isolation.own_minimum.into(),
        }
    }
}

impl From<types::TenantChange> for values::TenantChange {
    fn from(change: types::TenantChange) -> Self {
        let types::TenantChange { min_isolation, platform_min_isolation } = change;
        Self {
            min_isolation: min_isolation.map(Into::into),
            platform_min_isolation: platform_min_isolation.map(Into::into),
        }
    }
}
