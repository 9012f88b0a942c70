//! CEL rules of the schema and their messages; those on names are generated from the allow-list.
//!
//! The API server limits the cost of a rule. Lists of names are cheap; regular expressions and
//! messages that convert numbers are not.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nettune_sizing::{INTERFACE_FAMILIES, allow_list};

/// CEL: a number of nodes or a percentage.
pub(crate) const MAX_FAILED_IS_VALID: &str =
    "type(self) == int ? self >= 0 && self <= 100000 : self.matches('^(100|[1-9]?[0-9])%$')";

pub(crate) const MAX_FAILED_MESSAGE: &str = "maxFailed must be a number from 0 to 100000 such as 3, or a percentage from 0% to 100% such as 5%";

/// A number or a string. The schema of [`IntOrString`] itself accepts null, which is neither.
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

pub(crate) const THRESHOLDS_MESSAGE: &str = "thresholds must be in ascending order (gcThresh1 < gcThresh2 < gcThresh3), for example {gcThresh1: 2048, gcThresh2: 8192, gcThresh3: 16384}; otherwise the kernel runs its garbage collector for each packet";

/// CEL: the message for a name that is not on the allow-list.
pub(crate) const NAME_NOT_ALLOWED: &str = "'sysctl ' + self.name + ' is not on the allow-list; use a name from docs/api.md, with dots, such as net.core.somaxconn'";

/// CEL: the message for a name that a block manages.
pub(crate) const NAME_OF_A_BLOCK: &str = "'sysctl ' + self.name + ' is managed by another field; set ' + (self.name.startsWith('net.netfilter.') ? 'spec.conntrack.minEntries and maxEntries' : self.name.startsWith('net.ipv4.vs.') ? 'spec.ipvs' : 'spec.neighbors.thresholds') + ' instead'";

pub(crate) fn connections_per_pod() -> i64 {
    nettune_sizing::ConntrackPolicy::default()
        .connections_per_pod
        .into()
}

/// CEL: the name is on the allow-list, or is a sysctl of an interface.
pub(crate) fn name_is_allowed() -> String {
    let interfaces: Vec<String> = INTERFACE_FAMILIES
        .iter()
        .map(|family| {
            // The name of an interface has at most 15 bytes; `all` and `default` are listed by
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

/// CEL: no block manages the name, whether or not the tuning has that block.
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

/// A label value: empty, or letters and digits with `-`, `_` and `.` between them.
pub(crate) const LABEL_VALUE: &str = "^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$";

/// A label key: a name with an optional DNS name and slash as a prefix.
const LABEL_KEY: &str =
    "^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$";

pub(crate) const LABEL_KEY_MESSAGE: &str = "a label key must consist of letters, digits, '-', '_' and '.', with an optional domain and slash as a prefix, such as node.kubernetes.io/instance-type";

pub(crate) const LABEL_VALUE_MESSAGE: &str =
    "a label value must be empty or at most 63 letters, digits, '-', '_' and '.'";

/// CEL: the key of a requirement.
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

/// A bounded map of labels: the cost of a rule over them depends on the bounds.
pub(crate) fn labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": {"type": "string", "maxLength": 63}
    })
}
