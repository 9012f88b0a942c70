//! IPVS: what happens to a connection that reuses a source port, by kernel.
//!
//! With `conn_reuse_mode` 0, IPVS sends it to the pod of the port's last connection, even if that
//! pod no longer exists (kubernetes #81775). With 1, kernels without the fix below drop its first
//! packet, which costs 1 s (kubernetes #70747, #93297).

use crate::facts::NodeFacts;
use crate::kernel_version::KernelVersion;
use crate::policy::{ConnReuseMode, IpvsPolicy};
use crate::sizes::Sizes;
use crate::sysctl::desired_value::DesiredValue;
use crate::sysctl::keys;

/// First kernel with the sysctl (d752c3645717 "ipvs: allow rescheduling of new connections when
/// port reuse is detected"; kube-proxy: `connReuseMinSupportedKernelVersion`).
const INTRODUCED: (u16, u16) = (4, 1);

/// f0a5e4d7a594 "ipvs: allow connection reuse for unconfirmed conntrack" removed the delay
/// (kube-proxy: `connReuseFixedKernelVersion`).
const FIXED: (u16, u16) = (5, 9);

/// Stable kernels with that fix, by series and patch level, from the shortlogs of their
/// announcements (August 19 and 21, 2020). 5.7 counts as not fixed: the fix was in the review of
/// 5.7.16, but no announcement confirms it.
const FIXED_STABLE: [((u16, u16), u16); 4] =
    [((4, 14), 194), ((4, 19), 140), ((5, 4), 59), ((5, 8), 2)];

pub(crate) fn size(policy: &IpvsPolicy, node: &NodeFacts, sizes: &mut Sizes) {
    let chosen = "set by the tuning (ipvs.connReuseMode)";
    let reuse = match policy.conn_reuse_mode {
        ConnReuseMode::Auto => by_kernel(node.kernel),
        ConnReuseMode::Disabled => Some((0, chosen.to_owned())),
        ConnReuseMode::Enabled => Some((1, chosen.to_owned())),
        ConnReuseMode::Unmanaged => None,
    };
    if let Some((mode, reason)) = reuse {
        sizes.want(
            &keys::VS_CONN_REUSE_MODE,
            DesiredValue::exactly(mode),
            reason,
        );
    }
    sizes.want(
        &keys::VS_EXPIRE_NODEST_CONN,
        DesiredValue::exactly(1),
        "connections to a removed pod end immediately, as with kube-proxy".to_owned(),
    );
    sizes.want(
        &keys::VS_EXPIRE_QUIESCENT_TEMPLATE,
        DesiredValue::exactly(1),
        "session affinity does not keep clients on a draining pod, as with kube-proxy".to_owned(),
    );
}

/// The mode and its reason; `None` if the kernel does not have the sysctl.
fn by_kernel(kernel: Option<KernelVersion>) -> Option<(u64, String)> {
    let Some(kernel) = kernel else {
        let reason =
            "kernel unknown, assumed 5.9 or later: reused ports are rescheduled immediately";
        return Some((1, reason.to_owned()));
    };
    if !kernel.at_least(INTRODUCED.0, INTRODUCED.1) {
        return None;
    }
    if kernel.at_least(FIXED.0, FIXED.1) {
        let reason = format!(
            "kernel {kernel} reschedules reused ports immediately, as all kernels since 5.9"
        );
        return Some((1, reason));
    }
    let taken_in = FIXED_STABLE
        .iter()
        .find(|(series, _)| *series == kernel.series());
    let unless = match (taken_in, kernel.patch()) {
        (Some(&((major, minor), first)), Some(patch)) if patch >= first => {
            let reason = format!(
                "kernel {kernel} reschedules reused ports immediately: {major}.{minor}.{first} has \
                 the fix from 5.9"
            );
            return Some((1, reason));
        }
        (Some(&((major, minor), first)), None) => format!(
            " (fixed in {major}.{minor}.{first}, but this release does not show its patch level)"
        ),
        _ => String::new(),
    };
    let reason = format!(
        "kernel {kernel} lacks the fix from 5.9{unless}: 1 would delay each reused port by 1 s; \
         with 0, some connections go to removed pods"
    );
    Some((0, reason))
}
