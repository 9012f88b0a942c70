//! A plan for people: a table for each group, every value with its reason below.

use std::fmt::Write as _;

use nettune_crds::{ProfileSysctl, Rule};

use crate::report::{Facts, Group, Plan};

/// Columns of the terminal that it fits in.
const WIDTH: usize = 100;

const INDENT: &str = "    ";

/// Names that are listed; `-o json` has them all.
const MOST_NAMES: usize = 5;

/// Draws the whole plan.
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
            &format!("{nodes} not selected by any tuning: {names}"),
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
            &format!("(most of them; they differ in {differ})"),
            "  ",
            "  ",
        );
    }
    text.push('\n');
    draw_sysctls(text, &group.sysctls);
    for warning in &group.warnings {
        text.push('\n');
        wrap(text, warning, "warning: ", "         ");
    }
}

fn describe(facts: &Facts) -> String {
    let links = match facts.pod_links {
        "Bridge" => "pods on a bridge",
        _ => "point-to-point pods",
    };
    let mut text = format!(
        "{} pods each, {links}; pod network {} ({}); kernel {}; {} of memory; {} cores",
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
        text += "; a cloud provider's";
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

fn draw_sysctls(text: &mut String, sysctls: &[ProfileSysctl]) {
    let width = |of: fn(&ProfileSysctl) -> &str, least: usize| {
        let longest = sysctls.iter().map(|sysctl| of(sysctl).len()).max();
        longest.unwrap_or(0).clamp(least, 60)
    };
    let names = width(|sysctl| &sysctl.name, 4);
    let values = width(|sysctl| &sysctl.value, 5).min(WIDTH - names - 11);
    let _ = writeln!(text, "{:names$}  {:values$}  RULE", "NAME", "VALUE");
    for alike in same_reason(sysctls) {
        for ProfileSysctl {
            name, rule, value, ..
        } in &alike
        {
            let rule = match rule {
                Rule::AtLeast => "AtLeast",
                Rule::Exact => "Exact",
            };
            let _ = writeln!(text, "{name:names$}  {value:values$}  {rule}");
        }
        if let Some(sysctl) = alike.first() {
            wrap(text, &sysctl.reason, INDENT, INDENT);
        }
    }
}

/// Sysctls in order, but those with the same value for the same reason together: both families of
/// a threshold.
fn same_reason(sysctls: &[ProfileSysctl]) -> Vec<Vec<&ProfileSysctl>> {
    let mut all: Vec<Vec<&ProfileSysctl>> = Vec::new();
    for sysctl in sysctls {
        let same = |alike: &&mut Vec<&ProfileSysctl>| {
            alike.first().is_some_and(|first| {
                (&first.value, first.rule, &first.reason)
                    == (&sysctl.value, sysctl.rule, &sysctl.reason)
            })
        };
        match all.iter_mut().find(same) {
            Some(alike) => alike.push(sysctl),
            None => all.push(vec![sysctl]),
        }
    }
    all
}

fn names(all: &[String]) -> String {
    let listed = all.iter().take(MOST_NAMES).map(String::as_str);
    let listed = listed.collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(MOST_NAMES) {
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// Breaks a paragraph between words; a word that is longer than a line has one of its own.
fn wrap(text: &mut String, paragraph: &str, first: &str, rest: &str) {
    let mut line = first.to_owned();
    let mut empty = true;
    for word in paragraph.split_whitespace() {
        let length = line.chars().count() + word.chars().count() + usize::from(!empty);
        if !empty && length > WIDTH {
            text.push_str(&line);
            text.push('\n');
            rest.clone_into(&mut line);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paragraphs_break_between_words_and_keep_their_indent() {
        let mut text = String::new();
        wrap(&mut text, &"×123456789 ".repeat(10), "", "  ");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].chars().count(), 98);
        assert_eq!(lines[1], "  ×123456789");
    }
}
