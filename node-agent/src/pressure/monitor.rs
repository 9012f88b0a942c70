//! The signs of the tables' health: what is counted each second, and what is judged from it.

use std::time::Duration;

use nettune_sizing::{KernelVersion, Mono, keys};

use crate::kernel::proc_file::read_bounded;
use crate::kernel::sysctl::Roots;
use crate::pressure::conditions::{
    PressureCondition, PressureInputs, PressureTotals, PressureTracker,
};
use crate::pressure::counters::{Counters, Reading};
use crate::pressure::flannel::{self, Flannel};
use crate::pressure::neighbors::{CountedEntries, Inspector};
use crate::pressure::utilization::Utilization;
use nettune_reconcile::observed::{Counts, ObservedState, OverflowCounters};

/// How often the devices are looked through for those that tell something.
const DEVICES: Duration = Duration::from_secs(30);

/// Devices that are on a node only where connections are tracked in eBPF maps: Cilium's, and those
/// that Calico makes when its eBPF data path is on.
const EBPF_DEVICES: [&str; 2] = ["cilium_host", "bpfin.cali"];

/// Counters, and what they mean.
#[derive(Debug)]
pub struct TableMonitor {
    roots: Roots,
    counters: Counters,
    reading: Reading,
    pressure: PressureTracker,
    tables: Utilization,
    inspector: Inspector,
    ebpf: Option<&'static str>,
    flannel_devices: Vec<String>,
    devices_read: Option<Mono>,
}

/// What is found on the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableConditions {
    /// On the neighbour tables.
    pub neighbors: PressureCondition,
    /// On the conntrack table.
    pub conntrack: PressureCondition,
}

impl TableMonitor {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self {
            roots: roots.clone(),
            counters: Counters::new(roots),
            reading: Reading::default(),
            pressure: PressureTracker::default(),
            tables: Utilization::default(),
            inspector: Inspector::default(),
            ebpf: None,
            flannel_devices: Vec::new(),
            devices_read: None,
        }
    }

    /// Reads the counters, and judges them where a second is over.
    pub fn read(&mut self, conntrack_max: Option<u64>, now: Mono) -> (Counts, OverflowCounters) {
        self.reading = self.counters.read();
        let around = PressureInputs {
            conntrack_max,
            ..PressureInputs::default()
        };
        self.pressure.observe(&self.reading, around, now);
        (self.reading.counts(), self.pressure.distress())
    }

    /// Takes the use of the tables into account, and what is read less often.
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
        self.tables.observe(live, counted, now);
    }

    /// What is found.
    #[must_use]
    pub fn findings(&self, now: Mono) -> TableConditions {
        let flannel = self.inspector.flannel().sentence();
        let around = PressureInputs {
            ebpf: self.ebpf,
            flannel: flannel.as_deref(),
            ..PressureInputs::default()
        };
        TableConditions {
            neighbors: self.pressure.neighbors(around, now),
            conntrack: self.pressure.conntrack(around, now),
        }
    }

    /// What is known of Flannel's entries.
    #[must_use]
    pub const fn flannel(&self) -> &Flannel {
        self.inspector.flannel()
    }

    /// Use of the tables.
    #[must_use]
    pub const fn tables(&self) -> &Utilization {
        &self.tables
    }

    /// The counters as they were last read.
    #[must_use]
    pub const fn reading(&self) -> &Reading {
        &self.reading
    }

    /// Sums that the kernel does not count itself.
    #[must_use]
    pub const fn totals(&self) -> PressureTotals {
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
    fn an_ebpf_data_path_is_told_by_its_devices() {
        let dev = |name: &str| {
            format!("Inter-|   Receive\n face |bytes\n    lo:  0 0\n{name:>6}: 12 0 cilium_host\n")
        };
        assert_eq!(ebpf_device(&dev("cilium_host")), Some("cilium_host"));
        assert_eq!(ebpf_device(&dev("bpfin.cali")), Some("bpfin.cali"));
        assert_eq!(ebpf_device(&dev("cali1234")), None);
        assert_eq!(ebpf_device(""), None);
    }
}
