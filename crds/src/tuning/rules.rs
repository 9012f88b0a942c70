//! The CEL rules of the schema that are made from the allow-list, and their sentences.
//!
//! The API server limits what a rule may cost: lists of names are cheap, regular expressions and
//! messages that convert numbers are not.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nettune_sizing::{INTERFACE_FAMILIES, allow_list};

/// CEL: a number of nodes, or a share of them.
pub(crate) const MAX_FAILED_IS_VALID: &str =
    "type(self) == int ? self >= 0 && self <= 100000 : self.matches('^(100|[1-9]?[0-9])%$')";

/// Says what `maxFailed` looks like.
pub(crate) const MAX_FAILED_MESSAGE: &str = "maxFailed is a number of nodes from 0 to 100000, like 3, or a share of the nodes written from 0% to 100%, like 5%";

/// A number or a text; the schema of [`IntOrString`] itself would let null in, which is neither.
pub(crate) fn int_or_string_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-int-or-string": true})
}

pub(crate) fn max_failed() -> IntOrString {
    IntOrString::String("5%".to_owned())
}

pub(crate) fn min_ready_seconds() -> i64 {
    60
}

pub(crate) fn node_deadline_seconds() -> i64 {
    120
}

pub(crate) fn shrink_after_seconds() -> i64 {
    3600
}

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

/// A label's value: empty, or letters and digits with `-`, `_` and `.` between them.
pub(crate) const LABEL_VALUE: &str = "^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$";

/// A label's key: a name, before it perhaps a DNS name and a slash.
const LABEL_KEY: &str =
    "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$";

/// Says what a label's key looks like.
pub(crate) const LABEL_KEY_MESSAGE: &str = "a label's key is letters and digits with - _ . between them, before them perhaps a domain and a slash, like node.kubernetes.io/instance-type";

/// Says what a label's value looks like.
pub(crate) const LABEL_VALUE_MESSAGE: &str =
    "a label's value is at most 63 letters and digits with - _ . between them, or empty";

/// CEL: the key of one requirement.
pub(crate) fn label_key_is_valid() -> String {
    format!("self.matches('{LABEL_KEY}')")
}

/// CEL: the keys of matchLabels.
pub(crate) fn label_keys_are_valid() -> String {
    format!("!has(self.matchLabels) || self.matchLabels.all(key, key.matches('{LABEL_KEY}'))")
}

/// CEL: the values of matchLabels.
pub(crate) fn label_values_are_valid() -> String {
    format!(
        "!has(self.matchLabels) || self.matchLabels.all(key, self.matchLabels[key].matches('{LABEL_VALUE}'))"
    )
}

/// A map of few and short labels: what a rule over them may cost depends on these bounds.
pub(crate) fn labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63}
    })
}
