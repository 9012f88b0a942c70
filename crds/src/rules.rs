//! The CEL rules of the schema that are made from the allow-list, and their sentences.
//!
//! The API server limits what a rule may cost: lists of names are cheap, regular expressions and
//! messages that convert numbers are not.

use nettune_sizing::{INTERFACE_FAMILIES, allow_list};

/// Says how thresholds must be ordered.
pub(crate) const THRESHOLDS_MESSAGE: &str = "thresholds must ascend, gcThresh1 < gcThresh2 < gcThresh3, or the kernel's garbage collector runs for every packet; write for example {gcThresh1: 2048, gcThresh2: 8192, gcThresh3: 16384}";

/// CEL: a name that no list holds.
pub(crate) const NAME_NOT_ALLOWED: &str = "'the sysctl ' + self.name + ' is not on the allow-list; write a name that docs/api.md lists, with dots, like net.core.somaxconn'";

/// CEL: a name that belongs to a block.
pub(crate) const NAME_OF_A_BLOCK: &str = "'the sysctl ' + self.name + ' is managed by a block; set it with ' + (self.name.startsWith('net.netfilter.') ? 'spec.conntrack.minEntries and maxEntries' : self.name.startsWith('net.ipv4.vs.') ? 'spec.ipvs' : 'spec.neighbors.thresholds') + ' instead'";

pub(crate) fn connections_per_pod() -> i64 {
    nettune_sizing::ConntrackPolicy::default()
        .connections_per_pod
        .into()
}

/// CEL: the name is listed, or that of an interface's sysctl.
pub(crate) fn name_is_allowed() -> String {
    let interfaces: Vec<String> = INTERFACE_FAMILIES
        .iter()
        .map(|family| {
            // 15 bytes is the longest name of an interface; `all` and `default` are listed by
            // their full names.
            let prefix = family.prefix.replace('.', "[.]");
            format!(
                "(self.name.matches('^{prefix}[.][A-Za-z0-9_.-]{{1,15}}[.]({})$') && !self.name.matches('^{prefix}[.](all|default)[.]|[.][.]'))",
                family.leaves.join("|"),
            )
        })
        .collect();
    format!("{} || {}", name_in(|_| true), interfaces.join(" || "))
}

/// CEL: the name belongs to no block, whether or not that block is there.
pub(crate) fn name_is_free() -> String {
    format!("!({})", name_in(|listed| listed.block.is_some()))
}

fn name_in(keep: impl Fn(&nettune_sizing::Listed) -> bool) -> String {
    let names: Vec<String> = allow_list()
        .iter()
        .filter(|listed| keep(listed))
        .map(|listed| format!("'{}'", listed.name))
        .collect();
    format!("self.name in [{}]", names.join(", "))
}
