//! A sysctl's name that is known to be on the allow-list.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::sysctl::allow_list::{self, Block, InterfaceFamily, Listed, Scope};

/// A sysctl that nettune may write. It can only be created from the compiled-in allow-list, whatever
/// the API says.
#[derive(Clone)]
pub struct SysctlKey(Repr);

#[derive(Clone)]
enum Repr {
    Listed(&'static Listed),
    OfInterface {
        family: &'static InterfaceFamily,
        name: Arc<str>,
    },
}

/// Why a name is not a valid key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not of the form of a sysctl's name.
    #[error(
        "{name:?} is not a valid sysctl name; use dots, as printed by sysctl(8), such as net.core.somaxconn"
    )]
    Form {
        /// As given.
        name: String,
    },
    /// Not on the list.
    #[error("sysctl {name} is not on the allow-list (see docs/api.md)")]
    NotAllowed {
        /// As given.
        name: String,
    },
}

/// Longest interface name, IFNAMSIZ − 1 (include/uapi/linux/if.h).
const INTERFACE_NAME_MAX: usize = 15;

impl SysctlKey {
    /// Finds a dotted name on the allow-list. In names of one interface the dots of the
    /// interface's own name stay as they are: `net.ipv4.neigh.eth0.100.gc_stale_time`.
    ///
    /// # Errors
    /// When the name contains anything but letters, digits, `_`, `-` and single dots, or is not on
    /// the list.
    pub fn parse(name: &str) -> Result<Self, InvalidKey> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let form = !name.is_empty()
            && name.len() <= 128
            && name.chars().all(plain)
            && name.split('.').all(|part| !part.is_empty());
        if !form {
            let name = name.chars().take(128).collect();
            return Err(InvalidKey::Form { name });
        }
        if let Some(listed) = allow_list::find(name) {
            return Ok(Self(Repr::Listed(listed)));
        }
        allow_list::INTERFACE_FAMILIES
            .iter()
            .find(|family| {
                family
                    .interface_in(name)
                    .is_some_and(|interface| interface.len() <= INTERFACE_NAME_MAX)
            })
            .map(|family| {
                Self(Repr::OfInterface {
                    family,
                    name: name.into(),
                })
            })
            .ok_or_else(|| InvalidKey::NotAllowed { name: name.into() })
    }

    /// A key whose name is written in this crate's source; see [`crate::sysctl::keys`].
    pub(crate) const fn of(listed: &'static Listed) -> Self {
        Self(Repr::Listed(listed))
    }

    /// The dotted name.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.0 {
            Repr::Listed(listed) => listed.name,
            Repr::OfInterface { name, .. } => name,
        }
    }

    /// The file's path below /proc/sys: `net/ipv4/neigh/eth0.100/gc_stale_time`.
    #[must_use]
    pub fn path(&self) -> String {
        match &self.0 {
            Repr::Listed(listed) => listed.name.replace('.', "/"),
            Repr::OfInterface { family, name } => {
                let interface = family.interface_in(name).unwrap_or_default();
                let leaf = name.rsplit('.').next().unwrap_or_default();
                format!("{}/{interface}/{leaf}", family.prefix.replace('.', "/"))
            }
        }
    }

    /// The block of a tuning that manages it, if one does.
    #[must_use]
    pub fn block(&self) -> Option<Block> {
        match &self.0 {
            Repr::Listed(listed) => listed.block,
            Repr::OfInterface { .. } => None,
        }
    }

    /// Whether its value holds for the whole node or for the host's network namespace alone.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match &self.0 {
            Repr::Listed(listed) => listed.scope,
            Repr::OfInterface { .. } => Scope::HostNamespace,
        }
    }
}

impl PartialEq for SysctlKey {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for SysctlKey {}

impl Hash for SysctlKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialOrd for SysctlKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for SysctlKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl fmt::Display for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for SysctlKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_of_an_interface_stay_in_its_name() {
        let key = SysctlKey::parse("net.ipv4.neigh.eth0.100.gc_stale_time").unwrap();
        assert_eq!(key.path(), "net/ipv4/neigh/eth0.100/gc_stale_time");
    }

    #[test]
    fn a_listed_name_becomes_its_path() {
        let key = SysctlKey::parse("net.bridge.bridge-nf-call-iptables").unwrap();
        assert_eq!(key.path(), "net/bridge/bridge-nf-call-iptables");
    }

    #[test]
    fn names_that_leave_the_list_are_refused() {
        for name in [
            "kernel.panic",
            "vm.overcommit_memory",
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.forwarding",
            "net.ipv4.conf.eth0.accept_redirects",
            "net.ipv4.neigh.eth0.gc_thresh1",
            "net.ipv4.neigh.an-interface-name.gc_stale_time",
            "net.nf_conntrack_max",
        ] {
            assert!(
                matches!(SysctlKey::parse(name), Err(InvalidKey::NotAllowed { .. })),
                "{name}"
            );
        }
    }

    #[test]
    fn names_that_could_leave_the_tree_are_refused() {
        for name in [
            "",
            ".",
            "net..core.somaxconn",
            "net/core/somaxconn",
            "net.core.somaxconn\n",
            "net.ipv4.neigh.../../x.gc_stale_time",
            " net.core.somaxconn",
        ] {
            assert!(
                matches!(SysctlKey::parse(name), Err(InvalidKey::Form { .. })),
                "{name:?}"
            );
        }
    }
}
