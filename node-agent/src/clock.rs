//! The time of day, for messages; waiting uses the monotonic clock.

use std::time::SystemTime;

use jiff::Timestamp;

/// Now, by this node's clock; 1970 if that is out of range.
#[must_use]
pub fn wall() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}
