//! A plan as text: a table for each group, with the reason below each value.

use std::fmt::Write as _;

use nettune_crds::ProfileSysctl;
use nettune_offline::table::{self, Row, wrap};

use crate::report::{Facts, Group, Plan};

/// Maximum number of node names in a list; `-o json` has all.
const MOST_NAMES: usize = 5;

pub(crate) fn draw(plan: &Plan) -> String {
    let mut text = String::new();
    for (index, group) in plan.groups.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        draw_group(&mut text, group);
    }
    if plan.groups.is_empty() {
        text += "No tuning selects any of these nodes.\n";
    } else if !plan.not_selected.is_empty() {
        let names = names(&plan.not_selected);
        let nodes = plan.not_selected.len();
        text.push('\n');
        wrap(
            &mut text,
            &format!(
                "{} not selected by any tuning: {names}",
                match nodes {
                    1 => "1 node is".to_owned(),
                    nodes => format!("{nodes} nodes are"),
                }
            ),
            "",
            "  ",
        );
    }
    text
}

fn draw_group(text: &mut String, group: &Group) {
    let mut title = match group.nodes {
        1 => "1 node".to_owned(),
        nodes => format!("{nodes} nodes"),
    };
    if !group.node_names.is_empty() {
        let _ = write!(
            title,
            ", tuning {}: {}",
            group.tuning,
            names(&group.node_names)
        );
    }
    wrap(text, &title, "", "  ");
    wrap(text, &describe(&group.facts), "  ", "  ");
    if !group.facts_differ.is_empty() {
        let differ = group.facts_differ.join(", ");
        wrap(
            text,
            &format!("(values of most of these nodes; others differ in {differ})"),
            "  ",
            "  ",
        );
    }
    text.push('\n');
    text.push_str(&draw_sysctls(&group.sysctls));
    for warning in &group.warnings {
        text.push('\n');
        wrap(text, warning, "warning: ", "         ");
    }
}

fn describe(facts: &Facts) -> String {
    let links = match facts.pod_links {
        "Bridge" => "pods on a bridge",
        _ => "pods on point-to-point links",
    };
    let mut text = format!(
        "up to {} pods per node, {links}; pod network {} ({}); kernel {}; {} of memory; {} cores",
        facts.pods,
        facts.pod_network,
        facts.pod_network_from,
        facts.kernel,
        memory(facts.memory_mib),
        facts.cores,
    );
    if !facts.ipv6 {
        text += "; no IPv6";
    }
    if facts.cloud {
        text += "; cloud provider";
    }
    text
}

fn memory(mib: u64) -> String {
    match (mib / 1024, mib % 1024 * 10 / 1024) {
        (0, _) => format!("{mib} MiB"),
        (gib, 0) => format!("{gib} GiB"),
        (gib, tenths) => format!("{gib}.{tenths} GiB"),
    }
}

fn draw_sysctls(sysctls: &[ProfileSysctl]) -> String {
    let row = |sysctl: &ProfileSysctl| Row {
        cells: [
            sysctl.name.clone(),
            sysctl.value.clone(),
            sysctl.rule.to_string(),
        ],
        note: sysctl.reason.clone(),
    };
    let rows: Vec<_> = sysctls.iter().map(row).collect();
    table::draw(["NAME", "VALUE", "RULE"], &rows)
}

fn names(all: &[String]) -> String {
    let listed = all.iter().take(MOST_NAMES).map(String::as_str);
    let listed = listed.collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(MOST_NAMES) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}
