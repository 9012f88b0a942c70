//! Limits are lowered only after the smaller size has been right for a while.

use std::sync::Arc;

use crate::memory::{ByNode, PendingShrink};
use crate::rollout::changes::Change;
use crate::rollout::transition::Shrink;
use crate::time::Clock;

/// Keeps larger limits in the changes until the smaller size has been right for `shrinkAfter`. Returns what to
/// remember.
pub(crate) fn delay_shrinks(
    changes: &mut [Change<'_>],
    remembered: &ByNode<PendingShrink>,
    clock: &mut Clock,
) -> ByNode<PendingShrink> {
    let mut remembered = remembered.cursor();
    let mut pending = Vec::new();
    for change in changes {
        let Some(Shrink { without, wanted }) = change.shrink.take() else {
            continue;
        };
        let shrink = match remembered.get(change.node.name) {
            Some(shrink) if shrink.wanted == wanted => shrink.clone(),
            _ => PendingShrink {
                since: clock.now.mono,
                wanted,
            },
        };
        if !clock.has_passed(shrink.since, change.rule.shrink_after) {
            change.transition = without;
            change.is_shrink_delayed = true;
        }
        pending.push((Arc::clone(change.node.name), shrink));
    }
    pending.into()
}
