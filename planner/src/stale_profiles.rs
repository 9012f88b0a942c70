//! Profiles of Nodes that are gone.

use crate::assign::Assignment;
use crate::priority::Priority;
use crate::write::Write;

/// Deletes the profiles whose Node is gone. If a new Node has the same name, it needs a profile of its own soon.
pub(crate) fn delete_stale_profiles(assignment: &Assignment<'_>) -> Vec<(Priority, Write)> {
    let recreated = assignment.recreated.iter().filter_map(|node| {
        let profile = node.profile?;
        Some((Priority::NewNode, Write::delete(node.name, profile)))
    });
    let orphans = assignment.orphans.iter();
    let orphans = orphans.map(|(name, profile)| (Priority::Removal, Write::delete(name, profile)));
    recreated.chain(orphans).collect()
}
