//! Chores that need more than cargo: the runtime library, models, generated references.
