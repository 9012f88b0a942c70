//! Monitors the tables: reads the counters each second and derives conditions and usage from them.

use std::time::Duration;

use nettune_sizing::{KernelVersion, Mono, keys};

use crate::kernel::proc_file::read_bounded;
use crate::kernel::sysctl::Roots;
use crate::pressure::conditions::{
    PressureCondition, PressureInputs, PressureTotals, PressureTracker,
};
use crate::pressure::counters::{Counters, Reading};
use crate::pressure::flannel::{self, Flannel};
use crate::pressure::neighbor_inspector::{CountedEntries, Inspector};
use crate::pressure::utilization::Utilization;
use nettune_reconcile::observed::{Counts, ObservedState, OverflowCounters};

/// How often the network devices are listed.
const DEVICES: Duration = Duration::from_secs(30);

/// Devices that exist only if connections are tracked in eBPF maps: Cilium's, and those of Calico's
/// eBPF data path.
const EBPF_DEVICES: [&str; 2] = ["cilium_host", "bpfin.cali"];

/// The counters and what is derived from them.
#[derive(Debug)]
pub struct TableMonitor {
    roots: Roots,
    counters: Counters,
    reading: Reading,
    pressure: PressureTracker,
    utilization: Utilization,
    inspector: Inspector,
    ebpf: Option<&'static str>,
    flannel_devices: Vec<String>,
    devices_read: Option<Mono>,
}

/// The two pressure conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableConditions {
    pub neighbors: PressureCondition,
    pub conntrack: PressureCondition,
}

impl TableMonitor {
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self {
            roots: roots.clone(),
            counters: Counters::new(roots),
            reading: Reading::default(),
            pressure: PressureTracker::default(),
            utilization: Utilization::default(),
            inspector: Inspector::default(),
            ebpf: None,
            flannel_devices: Vec::new(),
            devices_read: None,
        }
    }

    /// Reads the counters, and evaluates them once a second.
    pub fn read(&mut self, conntrack_max: Option<u64>, now: Mono) -> (Counts, OverflowCounters) {
        self.reading = self.counters.read();
        let inputs = PressureInputs {
            conntrack_max,
            ..PressureInputs::default()
        };
        self.pressure.observe(&self.reading, inputs, now);
        (self.reading.counts(), self.pressure.overflows())
    }

    /// Updates the usage, and what is read less often.
    pub fn observe(&mut self, live: &ObservedState, now: Mono) {
        if self.devices_read.is_none_or(|at| now.since(at) >= DEVICES) {
            self.devices_read = Some(now);
            let devices = read_bounded(&self.roots.proc.join("net/dev")).unwrap_or_default();
            self.ebpf = ebpf_device(&devices);
            self.flannel_devices = flannel::devices(&devices);
        }
        if self.counters.are_of_kernel() {
            let limits = [&keys::IPV4_GC_THRESH3, &keys::IPV6_GC_THRESH3];
            let limits = limits.map(|key| live.number(key));
            self.inspector
                .turn(&live.counts, limits, &self.flannel_devices, now);
        }
        let counted = match live.machine.kernel {
            Some(kernel) if counts_all(kernel) => {
                let counts = [live.counts.neighbors_ipv4, live.counts.neighbors_ipv6];
                counts.map(|entries| entries.map_or(CountedEntries::Unknown, CountedEntries::Known))
            }
            _ => self.inspector.counted(&live.counts),
        };
        self.utilization.observe(live, counted, now);
    }

    /// The conditions that the counters show.
    #[must_use]
    pub fn conditions(&self, now: Mono) -> TableConditions {
        let flannel = self.inspector.flannel().sentence();
        let inputs = PressureInputs {
            ebpf: self.ebpf,
            flannel: flannel.as_deref(),
            ..PressureInputs::default()
        };
        TableConditions {
            neighbors: self.pressure.neighbors(inputs, now),
            conntrack: self.pressure.conntrack(inputs, now),
        }
    }

    #[must_use]
    pub const fn flannel(&self) -> &Flannel {
        self.inspector.flannel()
    }

    #[must_use]
    pub(crate) const fn utilization(&self) -> &Utilization {
        &self.utilization
    }

    /// The counters as last read.
    #[must_use]
    pub const fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Sums that the kernel does not count itself.
    #[must_use]
    pub(crate) const fn totals(&self) -> PressureTotals {
        self.pressure.totals()
    }
}

/// Kernels before 5.0 count every entry (58956317c8de "neighbor: Improve garbage collection").
fn counts_all(kernel: KernelVersion) -> bool {
    !kernel.at_least(5, 0)
}

/// The device of an eBPF data path in the text of `/proc/net/dev`.
fn ebpf_device(text: &str) -> Option<&'static str> {
    let mut devices = text.lines().filter_map(|line| line.split_once(':'));
    devices.find_map(|(device, _)| EBPF_DEVICES.into_iter().find(|ebpf| *ebpf == device.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ebpf_data_path_is_found_by_its_devices() {
        let dev = |name: &str| {
            format!("Inter-|   Receive\n face |bytes\n    lo:  0 0\n{name:>6}: 12 0 cilium_host\n")
        };
        assert_eq!(ebpf_device(&dev("cilium_host")), Some("cilium_host"));
        assert_eq!(ebpf_device(&dev("bpfin.cali")), Some("bpfin.cali"));
        assert_eq!(ebpf_device(&dev("cali1234")), None);
        assert_eq!(ebpf_device(""), None);
    }
}
