//! The time of day, which people are told; what is waited for is told by the monotonic clock.

use std::time::SystemTime;

use jiff::Timestamp;

/// Now, by this node's clock. One that is centuries off tells of 1970.
#[must_use]
pub fn wall() -> Timestamp {
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}
