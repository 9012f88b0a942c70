//! What only the node itself can see.

use std::path::Path;

use nettune_crds::{PodLinks, ProfileFacts};
use nettune_sizing::{KernelVersion, SysctlKey, keys};

use crate::kernel::proc_file::read_bounded;
use crate::kernel::routes::Routes;
use crate::kernel::sysctl::Roots;
use nettune_reconcile::observed::Machine;

/// What stays the same for as long as the kernel runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// As `uname -r` prints it.
    pub kernel_release: String,
    /// The kernel that a distribution's kernel is based on, where it tells.
    pub base_kernel: Option<KernelVersion>,
    /// Logical processors.
    pub cores: u32,
}

/// A file that every node has cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: --proc-root must be a /proc")]
pub struct IdentityError {
    path: String,
    #[source]
    source: std::io::Error,
}

impl Identity {
    /// Reads it.
    ///
    /// # Errors
    /// When there is no boot id or kernel release.
    pub fn read(roots: &Roots) -> Result<Self, IdentityError> {
        let line = |name: &str| {
            let path = roots.proc.join(name);
            let text = read_bounded(&path).map_err(|source| IdentityError {
                path: path.display().to_string(),
                source,
            })?;
            Ok(text.trim().chars().take(128).collect::<String>())
        };
        let signature = read_bounded(&roots.proc.join("version_signature")).ok();
        Ok(Self {
            boot_id: line("sys/kernel/random/boot_id")?,
            kernel_release: line("sys/kernel/osrelease")?,
            base_kernel: signature
                .and_then(|text| KernelVersion::from_version_signature(&text).ok()),
            cores: cores(&roots.proc),
        })
    }

    #[must_use]
    pub fn machine(&self) -> Machine {
        let release = || KernelVersion::parse(&self.kernel_release).ok();
        Machine {
            cores: self.cores,
            kernel: self.base_kernel.or_else(release),
        }
    }
}

/// The lines `cpu0`, `cpu1`, … of /proc/stat. The standard library's count follows the limits of the
/// agent's own pod.
fn cores(proc: &Path) -> u32 {
    let text = read_bounded(&proc.join("stat")).unwrap_or_default();
    let is_core = |line: &&str| {
        line.strip_prefix("cpu")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let count = text.lines().filter(is_core).count();
    u32::try_from(count).unwrap_or(u32::MAX).max(1)
}

/// Whether these sysctls are those of the initial network namespace: only it has the thresholds of the
/// neighbor tables.
#[must_use]
pub(crate) fn is_initial_namespace(roots: &Roots) -> bool {
    exists(roots, &keys::IPV4_GC_THRESH3)
}

fn exists(roots: &Roots, key: &SysctlKey) -> bool {
    roots.sysctl.join(key.path()).exists()
}

/// Reads the facts. `known` is how pods were last linked: pods come and go, and a node must not be sized
/// differently each time.
#[must_use]
pub fn read(roots: &Roots, identity: &Identity, known: Option<PodLinks>) -> ProfileFacts {
    let routes = Routes::read(&roots.proc);
    let modules = [
        ("br_netfilter", "net/bridge"),
        ("ip_vs", "net/ipv4/vs"),
        ("nf_conntrack", "net/netfilter/nf_conntrack_max"),
    ];
    ProfileFacts {
        initial_network_namespace: is_initial_namespace(roots),
        ipv6: roots.sysctl.join("net/ipv6/neigh/default").is_dir(),
        pod_links: routes.pod_links().or(known),
        on_link_addresses: routes.on_link_addresses(),
        on_link_prefixes_ipv6: routes.on_link_prefixes_ipv6(),
        modules: modules
            .into_iter()
            .filter(|(_, path)| roots.sysctl.join(path).exists())
            .map(|(module, _)| module.to_owned())
            .collect(),
        base_kernel: identity.base_kernel.map(|version| version.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(files: &[(&str, &str)]) -> (tempfile::TempDir, Roots) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let roots = Roots {
            sysctl: dir.path().join("sys"),
            proc: dir.path().to_owned(),
        };
        (dir, roots)
    }

    const ALWAYS: [(&str, &str); 3] = [
        ("sys/kernel/random/boot_id", "b\n"),
        ("sys/kernel/osrelease", "5.4.0-150-generic\n"),
        ("stat", "cpu  1 2\ncpu0 1\ncpu1 1\ncpu11 1\nintr 5\n"),
    ];

    #[test]
    fn base_of_a_distributions_kernel_overrides_its_release() {
        let signature = [(
            "version_signature",
            "Ubuntu 5.4.0-150.167-generic 5.4.233\n",
        )];
        let (_dir, roots) = node(&[&ALWAYS[..], &signature].concat());
        let identity = Identity::read(&roots).unwrap();
        assert_eq!(
            identity.machine().kernel,
            KernelVersion::parse("5.4.233").ok()
        );
        assert_eq!(identity.cores, 3);
        let facts = read(&roots, &identity, None);
        assert_eq!(facts.base_kernel.as_deref(), Some("5.4.233"));
    }

    #[test]
    fn container_node_has_no_thresholds() {
        let conntrack = ("sys/net/netfilter/nf_conntrack_max", "1\n");
        let (_dir, roots) = node(&[&ALWAYS[..], &[conntrack]].concat());
        let identity = Identity::read(&roots).unwrap();
        let facts = read(&roots, &identity, Some(PodLinks::Bridge));
        assert!(!facts.initial_network_namespace && !facts.ipv6);
        assert_eq!(facts.modules, ["nf_conntrack"]);
        assert_eq!(facts.pod_links, Some(PodLinks::Bridge));
    }

    #[test]
    fn error_names_a_folder_that_is_not_proc() {
        let (_dir, roots) = node(&[]);
        let error = Identity::read(&roots).unwrap_err().to_string();
        assert!(
            error.contains("boot_id") && error.contains("--proc-root"),
            "{error}"
        );
    }
}
