//! Where the agents' Pods are, as `--agent-selector` says it.

use std::str::FromStr;

/// A namespace and the labels of the agents' Pods in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSelector {
    pub(crate) namespace: String,
    pub(crate) labels: String,
}

/// A selector that names no namespace or no labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "write NAMESPACE/LABELS, for example nettune/app.kubernetes.io/name=nettune-agent, and not {0:?}"
)]
pub struct InvalidSelector(String);

impl FromStr for AgentSelector {
    type Err = InvalidSelector;

    /// What is before the first slash is the namespace: it cannot have one, labels can.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, labels)) if !namespace.is_empty() && !labels.is_empty() => Ok(Self {
                namespace: namespace.to_owned(),
                labels: labels.to_owned(),
            }),
            _ => Err(InvalidSelector(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_before_the_first_slash_is_the_namespace() {
        let selector: AgentSelector = "nettune/app.kubernetes.io/name=agent,x!=y".parse().unwrap();
        assert_eq!(selector.namespace, "nettune");
        assert_eq!(selector.labels, "app.kubernetes.io/name=agent,x!=y");
    }

    #[test]
    fn a_namespace_and_labels_are_both_needed() {
        for text in ["app=agent", "/app=agent", "nettune/", ""] {
            let error = text.parse::<AgentSelector>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
