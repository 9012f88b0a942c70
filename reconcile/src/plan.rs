//! The stages that turn keys into a plan: evaluate, hold back, restore, and what must be saved first.

pub(crate) mod evaluate;
pub(crate) mod guards;
pub(crate) mod hold_back;
pub(crate) mod intent;
pub(crate) mod restore;
